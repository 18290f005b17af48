"""An answer whose tool calls are held to the schemas of their tools (`strict`).

The model writes freely until it begins a call. There the engine's request ends, and another one
writes the call under a guide. Its prompt is in the engine's cache.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import structs

from dynemo.answer.formats.source import Marks
from dynemo.answer.thoughts import HeldCalls, Thoughts
from dynemo.errors import RequestError
from dynemo.messages.answer import Delta
from dynemo.messages.request import Request
from dynemo.serving.first_step import FirstStep
from dynemo.serving.thinking import Generate
from dynemo.tokenizers.base import Tokenizer

_log = logging.getLogger(__name__)


async def hold_calls(
    request: Request, generate: Generate, held: HeldCalls, tokenizer: Tokenizer
) -> AsyncGenerator[Delta, None]:
    """Yields the deltas of one sequence. A request with a guide is left alone."""
    state = None if request.guide is not None else _State(request, held, tokenizer)
    async with aclosing(generate(request)) as deltas:
        async for delta in deltas:
            if state is None:
                yield delta
                continue
            known = state.take(delta)
            if delta.finish is not None and not state.is_call:
                yield structs.replace(known or Delta(), finish=delta.finish)
                return
            if known:
                yield known
            if state.is_call:
                break
    if state is None:
        return
    rest = structs.replace(state.step.rest(), id=f"{request.id}-call")
    has_begun = False
    try:
        async with aclosing(generate(structs.replace(rest, guide=held.guide))) as deltas:
            async for delta in deltas:
                has_begun = True
                yield state.step.adjusted(delta)
        return
    except RequestError as error:
        if has_begun:
            raise
        _log.info("A strict call is not held to its schema. %s", error)
    async with aclosing(generate(rest)) as deltas:
        async for delta in deltas:
            yield state.step.adjusted(delta)


class _State:
    """The tokens before the first call."""

    def __init__(self, request: Request, held: HeldCalls, tokenizer: Tokenizer) -> None:
        self.step = FirstStep(request, tokenizer)
        self._thoughts = Thoughts(held.thinking)
        self._marks = Marks(held.marks)
        self.is_call = False

    def take(self, delta: Delta) -> Delta | None:
        """Returns the tokens before a call, or None."""
        step = self.step
        for token in step.tokens(delta):
            step.add(token)
            if not self._thoughts.is_over:
                self._thoughts.feed(token.text)
                if self._thoughts.stage == "start":
                    continue
                if self._thoughts.stage != "content":
                    step.settled = step.count
                    continue
            if self._is_begun():
                break
        if delta.finish is not None and not self.is_call:
            step.settled = step.count
        return step.known()

    def _is_begun(self) -> bool:
        """Looks for a call in the tokens that are not settled, and settles those before it."""
        step = self.step
        text = "".join(step.texts[step.settled :])
        place, mark = self._marks.find(text, 0, is_over=False)
        self.is_call = bool(mark)
        left = place
        while step.settled < step.count and len(step.texts[step.settled]) <= left:
            left -= len(step.texts[step.settled])
            step.settled += 1
        if self.is_call:
            before = step.texts[step.settled][:left] if step.settled < step.count else ""
            step.cut(step.settled)
            if before:
                step.add_text(before)
                step.settled = step.count
        return self.is_call
