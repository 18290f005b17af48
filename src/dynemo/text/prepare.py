"""From an ask to what an engine gets: defaults, prompt, token ids, limits. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from dynemo.errors import ContextLengthExceeded, RequestError, UnsupportedField
from dynemo.messages import Ask, Instance, Request, Sampling
from dynemo.text.card import Card
from dynemo.text.prompt import Conversation, build_prompt

_NEUTRAL = Sampling()
_SAMPLING = structs.fields(Sampling)


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
    ask: Ask, card: Card, instance: Instance, request_id: str, traceparent: str = ""
) -> Prepared:
    """Raises RequestError: a field the engine cannot honour, a prompt that does not fit, or what
    the chat template says."""
    if not ask.messages:
        raise RequestError(
            "'messages' must not be empty: at least one is needed.", param="messages"
        )
    if "chat" not in instance.capabilities.tasks:
        raise RequestError(
            f"{card.name} was loaded for embeddings: POST /v1/embeddings asks for them.",
            param="model",
        )
    ask = merged(ask, _honoured(card.defaults, instance))
    sampling = _sampling(ask)
    ignore_eos = bool(ask.ignore_eos)
    _check_capabilities(sampling, ignore_eos, instance)
    _check_guide(ask, instance)
    _check_logit_bias(sampling, card)
    prompt = build_prompt(
        card.template, card.tokenizer, _conversation(ask), limit=instance.context_length
    )
    request = Request(
        id=request_id,
        token_ids=prompt.token_ids,
        prompt=prompt.text,
        max_tokens=_budget(len(prompt.token_ids), ask.max_tokens, instance.context_length),
        sampling=sampling,
        stop_ids=[] if ignore_eos else list(card.eos_ids),
        ignore_eos=ignore_eos,
        guide=ask.guide,
        traceparent=traceparent,
        messages=ask.messages if instance.capabilities.takes == "messages" else [],
    )
    choices = [_choice(request, index) for index in range(ask.n or 1)]
    return Prepared(choices, tuple(ask.stop or ()))


def prepare_embeddings(
    inputs: Sequence[str | list[int]],
    card: Card,
    instance: Instance,
    request_id: str,
    traceparent: str = "",
) -> list[Request]:
    """One `Request` a text or prompt of token ids. Raises RequestError."""
    if "embed" not in instance.capabilities.tasks:
        raise RequestError(
            f"{card.name} was loaded to answer, and gives no embeddings; a model for embeddings "
            "does, or out=llama_cpp with `-- --embeddings`.",
            param="model",
        )
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
        if len(ids) > instance.context_length:
            raise ContextLengthExceeded(
                f"'input[{index}]' has {len(ids)} tokens, and {card.name} takes "
                f"{instance.context_length}.",
                param="input",
            )
        requests.append(
            Request(
                id=f"{request_id}-{index}",
                token_ids=ids,
                prompt=text,
                max_tokens=1,
                sampling=_NEUTRAL,
                embed=True,
                traceparent=traceparent,
            )
        )
    return requests


def _honoured(defaults: Ask, instance: Instance) -> Ask:
    """The model's own settings, as far as the engine can honour them: nobody has asked for them."""
    can = instance.capabilities.sampling
    unknown = {f.name: None for f in _SAMPLING if f.name not in can}
    return structs.replace(defaults, **unknown)


def _conversation(ask: Ask) -> Conversation:
    return Conversation(
        ask.messages,
        tools=ask.tools,
        add_generation_prompt=ask.add_generation_prompt,
        continue_final_message=bool(ask.continue_final_message),
        kwargs=ask.chat_template_kwargs,
    )


def _sampling(ask: Ask) -> Sampling:
    said: dict[str, Any] = {}
    for field in _SAMPLING:
        value = getattr(ask, field.name)
        if value is not None:
            said[field.name] = value
    return Sampling(**said)


def _check_capabilities(sampling: Sampling, ignore_eos: bool, instance: Instance) -> None:
    can = instance.capabilities.sampling
    wanted = [
        field.name
        for field in _SAMPLING
        if getattr(sampling, field.name) != getattr(_NEUTRAL, field.name)
    ]
    if ignore_eos:
        wanted.append("ignore_eos")
    for name in wanted:
        if name not in can:
            raise UnsupportedField(f"The engine {instance.engine} has no {name!r}.", param=name)


def _check_guide(ask: Ask, instance: Instance) -> None:
    if ask.guide is not None and ask.guide.kind not in instance.capabilities.guides:
        raise UnsupportedField(
            f"The engine {instance.engine} cannot hold its answer to a {ask.guide.kind}.",
            param="response_format",
        )


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
