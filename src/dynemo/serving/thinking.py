"""An answer in two steps: first without a guide, up to its content, and then the rest.

A guide describes the content of an answer, and not the thoughts or the tool call that the model may
write instead. A budget ends thoughts that are too long. Both need the same: the engine's request
ends with the thoughts, and another one continues after their closing mark. Its prompt is in the
engine's cache, so it costs one more step.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from msgspec import structs

from dynemo.answer.thoughts import Thinking, Thoughts
from dynemo.messages.answer import Delta, Finish
from dynemo.messages.request import Request
from dynemo.serving.first_step import FirstStep, Token
from dynemo.tokenizers.base import Tokenizer

Generate = Callable[[Request], AsyncGenerator[Delta, None]]


async def think_first(
    request: Request, generate: Generate, thinking: Thinking, tokenizer: Tokenizer
) -> AsyncGenerator[Delta, None]:
    """Yields the deltas of one sequence. `request` has the guide, which applies to the content."""
    state = _State(request, thinking, tokenizer)
    free = structs.replace(request, guide=None, id=f"{request.id}-think")
    if not state.is_used_up:
        async with aclosing(generate(free)) as deltas:
            async for delta in deltas:
                if known := state.take(delta):
                    yield known
                if state.is_over and not state.is_call:
                    break
    if state.is_complete:
        return
    following = generate
    if closing := state.closing():
        yield closing
        if thinking.calls:
            after = replace(thinking, opens=(), is_open=False, budget=None)
            following = partial(think_first, generate=generate, thinking=after, tokenizer=tokenizer)
    async with aclosing(following(state.step.rest())) as deltas:
        async for delta in deltas:
            yield state.step.adjusted(delta)


class _State:
    """The first step, and where it ends."""

    def __init__(self, request: Request, thinking: Thinking, tokenizer: Tokenizer) -> None:
        self.step = FirstStep(request, tokenizer)
        self._thoughts = Thoughts(thinking)
        self._thinking = thinking
        self.is_complete = False  #: the whole answer has ended
        self._has_ended = False  # the model has ended its answer before any content

    @property
    def is_used_up(self) -> bool:
        """Whether the thoughts must end now."""
        limit = self._thinking.budget
        return limit is not None and self._thoughts.stage == "open" and self.step.count >= limit

    @property
    def is_call(self) -> bool:
        """Whether the model calls a tool. Then the first step is the whole answer."""
        return self._thoughts.stage == "call"

    @property
    def is_over(self) -> bool:
        return self._thoughts.is_over or self.is_used_up or self._has_ended

    def take(self, delta: Delta) -> Delta | None:
        """Returns the tokens that are part of the answer for certain, or None."""
        step = self.step
        if self.is_call:
            self.is_complete = delta.finish is not None
            return delta
        for token in step.tokens(delta):
            self._add(token)
            if self.is_over and not self.is_call:
                break
        if self._thoughts.stage == "content":  # the guide applies to it from its start
            step.cut(step.settled)
        elif delta.finish is not None and (self.is_call or not self.is_over):
            return self._last(delta.finish)
        return step.known()

    def _add(self, token: Token) -> None:
        step, thoughts = self.step, self._thoughts
        before = thoughts.stage
        if not thoughts.is_over:
            thoughts.feed(token.text)
        after = thoughts.stage
        if before == "open" and after in ("content", "closed") and thoughts.rest.strip():
            # The token of the closing mark has content, too.
            step.add_text(token.text.removesuffix(thoughts.rest))
        else:
            step.add(token)
        is_space = before == after == "lead" and step.settled and not thoughts.rest.strip()
        if before == "open" or after in ("open", "call", "closed") or is_space:
            step.settled = step.count

    def _last(self, finish: Finish) -> Delta | None:
        """The answer has ended without content."""
        step = self.step
        self.is_complete = self.is_call or finish.reason == "length"
        if self.is_complete:
            step.settled = step.count
            return structs.replace(step.known() or Delta(), finish=finish)
        self._has_ended = True
        step.drop_stop()
        step.cut(step.settled)
        return step.known()

    def closing(self) -> Delta | None:
        """The mark that ends the thoughts, if the model has not written it."""
        if self._thoughts.stage != "open":
            return None
        self.step.add_text(self._thinking.closing)
        self.step.settled = self.step.count
        return self.step.known()
