"""From an ask to what an engine gets: defaults, prompt, token ids, limits. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from dynemo.errors import ContextLengthExceeded, RequestError
from dynemo.messages import Ask, Instance, Request, Sampling
from dynemo.prompt.card.card import Card
from dynemo.prompt.needs import NEUTRAL, SAMPLING, Needs, able, chat_needs
from dynemo.prompt.normalise import in_text
from dynemo.prompt.render import RenderInput, build_prompt


@dataclass(frozen=True)
class Prepared:
    """One `Request` a choice, alike but for their ids and seeds, and the stop strings of all."""

    requests: list[Request]
    stops: tuple[str, ...]


def merged(ask: Ask, defaults: Ask) -> Ask:
    """`ask`, with what it leaves unsaid taken from `defaults`."""
    unsaid = {
        field: getattr(defaults, field)
        for field in ask.__struct_fields__
        if field != "messages" and getattr(ask, field) is None
    }
    return structs.replace(ask, **unsaid)


def prepare(
    ask: Ask, card: Card, kinds: Sequence[Instance], request_id: str, traceparent: str = ""
) -> Prepared:
    """`kinds` are those that could answer, see `Answerer.kinds`. Raises RequestError: a field that
    none of them can honour, a prompt that does not fit, or what the chat template says."""
    if not ask.messages:
        raise RequestError(
            "'messages' must not be empty: at least one is needed.", param="messages"
        )
    ask = merged(ask, _honoured(card.defaults, kinds))
    sampling = _sampling(ask)
    ignore_eos = bool(ask.ignore_eos)
    if ignore_eos and ask.guide is not None:  # an engine leaves the schema to go on
        raise RequestError(
            "'ignore_eos' and 'response_format' exclude each other.",
            param="ignore_eos",
        )
    needs = chat_needs(sampling, ask.guide, ignore_eos=ignore_eos)
    fit = able(needs, kinds, card.name)
    context_length = max(kind.context_length for kind in fit)
    _check_logit_bias(sampling, card)
    prompt = build_prompt(card.template, card.tokenizer, _conversation(ask), limit=context_length)
    request = Request(
        id=request_id,
        token_ids=prompt.token_ids,
        prompt=prompt.text,
        max_tokens=_budget(len(prompt.token_ids), ask.max_tokens, context_length),
        is_unbounded=ask.max_tokens is None,
        sampling=sampling,
        stop_ids=[] if ignore_eos else list(card.eos_ids),
        ignore_eos=ignore_eos,
        guide=ask.guide,
        traceparent=traceparent,
        messages=in_text(ask.messages)
        if any(k.capabilities.takes == "messages" for k in fit)
        else [],
    )
    choices = [_choice(request, index) for index in range(ask.n or 1)]
    return Prepared(choices, tuple(ask.stop or ()))


def prepare_embeddings(
    inputs: Sequence[str | list[int]],
    card: Card,
    kinds: Sequence[Instance],
    request_id: str,
    traceparent: str = "",
) -> tuple[list[Request], int]:
    """One `Request` a text or prompt of token ids, and how many can be computed at once. Raises
    RequestError."""
    fit = able(Needs("embed"), kinds, card.name)
    context_length = max(kind.context_length for kind in fit)
    requests = []
    for index, each in enumerate(inputs):
        if isinstance(each, str):
            ids, text = card.tokenizer.encode(each, add_special=True, parse_special=False), each
        else:
            ids, text = each, ""
            if any(not 0 <= token_id < card.tokenizer.vocab_size for token_id in ids):
                raise RequestError(
                    f"'input[{index}]' holds an id that {card.name} does not have.", param="input"
                )
        if len(ids) > context_length:
            raise ContextLengthExceeded(
                f"'input[{index}]' has {len(ids)} tokens, and {card.name} takes {context_length}.",
                param="input",
            )
        requests.append(
            Request(
                id=f"{request_id}-{index}",
                token_ids=ids,
                prompt=text,
                max_tokens=1,
                sampling=NEUTRAL,
                embed=True,
                traceparent=traceparent,
            )
        )
    return requests, sum(kind.slots for kind in fit)


def _honoured(defaults: Ask, kinds: Sequence[Instance]) -> Ask:
    """The model's own settings, as far as an engine can honour them: nobody has asked for them."""
    can = {name for kind in kinds for name in kind.capabilities.sampling}
    unknown = {f.name: None for f in SAMPLING if f.name not in can}
    return structs.replace(defaults, **unknown)


def _conversation(ask: Ask) -> RenderInput:
    return RenderInput(
        ask.messages,
        tools=ask.tools,
        add_generation_prompt=ask.add_generation_prompt,
        continue_final_message=bool(ask.continue_final_message),
        kwargs=ask.chat_template_kwargs,
    )


def _sampling(ask: Ask) -> Sampling:
    said: dict[str, Any] = {}
    for field in SAMPLING:
        value = getattr(ask, field.name)
        if value is not None:
            said[field.name] = value
    return Sampling(**said)


def _check_logit_bias(sampling: Sampling, card: Card) -> None:
    size = card.tokenizer.vocab_size
    for token_id in sampling.logit_bias:
        if not 0 <= token_id < size:
            raise RequestError(
                f"'logit_bias' names token {token_id}, but {card.name} has ids 0 to {size - 1}.",
                param="logit_bias",
            )


def _budget(prompt_tokens: int, max_tokens: int | None, context_length: int) -> int:
    """Tokens that may be generated: what was asked, at most what is left of the context."""
    left = context_length - prompt_tokens
    if left < 1:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {context_length} tokens, but the messages "
            f"resulted in {prompt_tokens} tokens, and at least one must be left for the answer. "
            "Please shorten the messages.",
            param="messages",
        )
    if prompt_tokens == 0:
        raise RequestError("The messages render to an empty prompt.", param="messages")
    return left if max_tokens is None else min(max_tokens, left)


def _choice(request: Request, index: int) -> Request:
    if index == 0:
        return request
    seed = request.sampling.seed
    sampling = request.sampling
    if seed is not None:  # else every choice of a seeded request would be the same one
        sampling = structs.replace(sampling, seed=seed + index)
    return structs.replace(request, id=f"{request.id}-{index}", sampling=sampling)
