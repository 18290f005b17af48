"""Turns an ask into the engine's requests: defaults, prompt, token ids, limits. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from msgspec import structs

from dynemo.answer.reader import AnswerPlan
from dynemo.errors import ContextLengthExceeded, RequestError
from dynemo.limits import EMBEDDING_TOKENS, GUIDE_BYTES
from dynemo.messages.ask import Ask, Task, merged
from dynemo.messages.records import Instance
from dynemo.messages.request import Request, Sampling
from dynemo.prompt.card.card import Card
from dynemo.prompt.checks import check_counts, check_ids, without_moot_seed
from dynemo.prompt.needs import SAMPLING, capable_instances, needs_of_ask
from dynemo.prompt.normalise import plain_messages
from dynemo.prompt.plan import (
    callable_tools,
    check_plan,
    plan_answer,
    render_input,
    shown_tokens,
)
from dynemo.prompt.render import (
    LIKELY_CHARACTERS,
    Prompt,
    Render,
    build_prompt,
    render_prompt,
    tokens_beyond,
)
from dynemo.prompt.steps import Steps, plan_steps, with_certainty, with_forced_call
from dynemo.spelling import quoted

_NO_DEFAULTS = Ask()


@dataclass(frozen=True, slots=True)
class Prepared:
    """One `Request` per choice of each prompt, and the stop strings for all of them."""

    task: Task
    requests: list[Request]
    prompt_tokens: int  #: each prompt counts once, even if several choices share it
    stops: tuple[str, ...] = ()
    plan: AnswerPlan | None = None  #: how to read the answers; None: all is content
    steps: Steps = field(default_factory=Steps)
    at_once: int = 0  #: how many requests may run at the same time; 0: all


def prepare(
    ask: Ask,
    card: Card,
    instances: Sequence[Instance],
    request_id: str,
    traceparent: str = "",
    *,
    render: Render = render_prompt,
    parses_content: bool = False,
) -> Prepared:
    """Prepares an ask for the instances that could answer it (see `Backend.instance_classes`).

    `parses_content`: a client's text that spells a control token becomes that token.

    Raises RequestError if no instance supports a field, if a prompt does not fit the context, or if
    the template refuses the conversation.
    """
    if ask.task == "embed":
        return _prepare_embeddings(ask, card, instances, request_id, traceparent)
    if not ask.turns:
        raise RequestError("A request needs at least one message.", param="turns")
    ask = without_moot_seed(merged(ask, _honoured(card.defaults, instances)))
    check_plan(ask, card)
    _check_bounds(ask, card)
    ask = with_forced_call(ask, card, instances)
    fit = capable_instances(needs_of_ask(ask), instances, card.name)
    context_length = max(instance.context_length for instance in fit)
    chat = render_input(ask, card, None if parses_content else card.control)
    prompt = build_prompt(card.template, card.tokenizer, chat, limit=context_length, render=render)
    plan = plan_answer(ask, card, prompt.text)
    text, extra = _text_for(fit, prompt)
    takes_messages = _take(fit, "messages")
    request = Request(
        id=request_id,
        token_ids=prompt.token_ids,
        prompt=text,
        shown={} if plan is None else shown_tokens(plan, card),
        max_tokens=_budget(len(prompt.token_ids) + extra, ask.max_tokens, context_length),
        is_unbounded=ask.max_tokens is None,
        traceparent=traceparent,
        messages=plain_messages(ask.turns) if takes_messages else [],
        tools=[tool.definition for tool in callable_tools(ask)] if takes_messages else [],
        **_answer_fields(ask, card),
    )
    choices = [_choice(request, index) for index in range(ask.n or 1)]
    steps = plan_steps(ask, card, plan, prompt.text, fit)
    plan = with_certainty(plan, ask, steps)
    check_counts(ask, request)
    count, stops = len(prompt.token_ids), tuple(ask.stop or ())
    return Prepared(ask.task, choices, count, stops, plan, steps)


def _answer_fields(ask: Ask, card: Card) -> dict[str, Any]:
    """Fields of the request: the choice of its tokens, its end, and its log probabilities."""
    own_stops = list(dict.fromkeys(ask.stop_ids or ()))
    eos_ids = () if ask.ignore_eos else card.eos_ids
    return {
        "sampling": _sampling(ask),
        "stop_ids": list(dict.fromkeys([*eos_ids, *own_stops])),
        "client_stop_ids": own_stops,
        "include_stop": bool(ask.include_stop),
        "ignore_eos": bool(ask.ignore_eos),
        "min_tokens": ask.min_tokens or 0,
        "logprobs": ask.logprobs,
        "prompt_logprobs": ask.prompt_logprobs,
        "guide": ask.guide,
    }


def _check_bounds(ask: Ask, card: Card) -> None:
    check_ids(ask, card)
    if ask.guide is None:
        return
    if ask.ignore_eos:  # an engine would violate the schema to continue
        raise RequestError(
            "'ignore_eos' cannot be combined with a guided answer.", param="ignore_eos"
        )
    if len(ask.guide.text) > GUIDE_BYTES:
        raise RequestError(
            f"The guide cannot be followed: it may have {GUIDE_BYTES} bytes.", param="guide"
        )


def _text_for(instances: Sequence[Instance], prompt: Prompt) -> tuple[str, int]:
    """Returns the prompt's text for engines, and how many tokens it has more than the prompt."""
    rendered = prompt.rendered
    if rendered is None or not rendered.marks or not _take(instances, "text"):
        return prompt.text, 0
    return rendered.split, rendered.split_tokens


def _prepare_embeddings(
    ask: Ask, card: Card, instances: Sequence[Instance], request_id: str, traceparent: str
) -> Prepared:
    fit = capable_instances(needs_of_ask(ask), instances, card.name)
    context_length = max(instance.context_length for instance in fit)
    if len(ask.prompts) > 1:
        _check_total(ask.prompts)
    prompts = [_raw_prompt(ask, index, card, context_length) for index in range(len(ask.prompts))]
    requests = [
        Request(
            id=f"{request_id}-{index}",
            token_ids=prompt.token_ids,
            prompt=prompt.text,
            max_tokens=1,
            sampling=Sampling(),
            embed=True,
            traceparent=traceparent,
        )
        for index, prompt in enumerate(prompts)
    ]
    tokens = sum(len(prompt.token_ids) for prompt in prompts)
    slots = sum(instance.slots for instance in fit)
    return Prepared(ask.task, requests, tokens, at_once=max(slots, 1))


def _raw_prompt(ask: Ask, index: int, card: Card, context_length: int) -> Prompt:
    given = ask.prompts[index]
    if isinstance(given, str):
        encode = partial(card.tokenizer.encode, add_special=False, parse_special=False)
        if beyond := tokens_beyond(context_length, given, encode):
            raise _too_long(index, f"more than {beyond}", card, context_length)
        ids = card.tokenizer.encode(given, add_special=True, parse_special=False)
        prompt = Prompt(given, ids)
    else:
        prompt = Prompt("", given)
        if any(not 0 <= token_id < card.tokenizer.vocab_size for token_id in given):
            raise RequestError(
                f"Text {index} of the request holds a token id that the model "
                f"{quoted(card.name)} does not have.",
                param="prompts",
            )
    if len(prompt.token_ids) > context_length:
        raise _too_long(index, str(len(prompt.token_ids)), card, context_length)
    return prompt


def _too_long(index: int, tokens: str, card: Card, context_length: int) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"Text {index} of the request has {tokens} tokens, but the model {quoted(card.name)} takes "
        f"at most {context_length}.",
        param="prompts",
    )


def _check_total(prompts: Sequence[str | list[int]]) -> None:
    """Raises RequestError before anything is tokenized, if the prompts are too many together."""
    tokens = sum(
        len(prompt) // LIKELY_CHARACTERS if isinstance(prompt, str) else len(prompt)
        for prompt in prompts
    )
    if tokens > EMBEDDING_TOKENS:
        raise RequestError(
            f"All texts of a request may have {EMBEDDING_TOKENS:,} tokens together. Send fewer "
            "texts at once.",
            param="prompts",
        )


def _honoured(defaults: Ask, instances: Sequence[Instance]) -> Ask:
    """Returns the model's own settings, without those that no engine supports.

    No client asked for these settings, so an unsupported one is not an error.
    """
    if defaults == _NO_DEFAULTS:
        return defaults
    can = {name for instance in instances for name in instance.capabilities.sampling}
    return structs.replace(defaults, **{name: None for name in SAMPLING if name not in can})


def _take(instances: Sequence[Instance], form: Literal["text", "messages"]) -> bool:
    """Whether any instance takes requests in this form."""
    return any(instance.capabilities.takes == form for instance in instances)


def _sampling(ask: Ask) -> Sampling:
    wanted = {name: getattr(ask, name) for name in SAMPLING}
    return Sampling(**{name: value for name, value in wanted.items() if value is not None})


def _budget(prompt_tokens: int, max_tokens: int | None, context_length: int) -> int:
    """Returns how many tokens may be generated: `max_tokens`, or what the context has left."""
    left = context_length - prompt_tokens
    if left < 1:
        raise ContextLengthExceeded(
            f"This model's maximum context length is {context_length} tokens, but the messages "
            f"resulted in {prompt_tokens} tokens, and at least one must be left for the answer. "
            "Please shorten the messages.",
            param="turns",
        )
    if prompt_tokens == 0:
        raise RequestError("The messages render to an empty prompt.", param="turns")
    return left if max_tokens is None else min(max_tokens, left)


def _choice(request: Request, index: int) -> Request:
    if index == 0:
        return request
    if request.prompt_logprobs is not None:  # the prompt of all choices is the same
        request = structs.replace(request, prompt_logprobs=None)
    seed = request.sampling.seed
    sampling = request.sampling
    if seed is not None:  # otherwise all choices of a seeded request would be equal
        sampling = structs.replace(sampling, seed=seed + index)
    return structs.replace(request, id=f"{request.id}-{index}", sampling=sampling)
