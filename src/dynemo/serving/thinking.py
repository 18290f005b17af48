"""An answer in two steps: the model's thoughts first, without a guide, and then the rest.

A guide describes the answer and not the thoughts before it. A budget ends thoughts that are too
long. Both need the same: the engine's request ends with the thoughts, and another one continues
after their closing mark. Its prompt is in the engine's cache, so it costs one more step.
"""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

from msgspec import structs

from dynemo.answer.thoughts import Thinking, Thoughts
from dynemo.messages.answer import Delta, Finish
from dynemo.messages.request import Request
from dynemo.tokenizers.base import Tokenizer

Generate = Callable[[Request], AsyncGenerator[Delta, None]]


async def think_first(
    generate: Generate, request: Request, thinking: Thinking, tokenizer: Tokenizer
) -> AsyncGenerator[Delta, None]:
    """Yields the deltas of one sequence. `request` has the guide, which applies at the end of the
    thoughts."""
    state = _State(request, thinking, tokenizer)
    free = structs.replace(request, guide=None, id=f"{request.id}-think")
    if not state.is_over:
        async with aclosing(generate(free)) as deltas:
            async for delta in deltas:
                if known := state.take(delta):
                    yield known
                if state.is_over:
                    break
    if state.is_complete:
        return
    if closing := state.closing():
        yield closing
    async with aclosing(generate(state.rest())) as deltas:
        async for delta in deltas:
            yield state.adjusted(delta)


class _State:
    """The first step: the tokens of the thoughts, and the request for the second step."""

    def __init__(self, request: Request, thinking: Thinking, tokenizer: Tokenizer) -> None:
        self._request = request
        self._thoughts = Thoughts(thinking)
        self._closing_text = thinking.closing
        self._budget = thinking.budget
        self._tokenizer = tokenizer
        self._detokenizer = tokenizer.detokenizer(request.shown)
        self._ids: list[int] = []
        self._texts: list[str] = []
        self._sent = 0  # tokens that were passed on
        self._gives_text = False
        self._cached = 0
        #: The thoughts have ended, or must end.
        self.is_over = thinking.is_open and thinking.budget == 0
        self.is_complete = False  #: the whole answer has ended

    def take(self, delta: Delta) -> Delta | None:
        """Returns the delta without the tokens after the thoughts, or None while it is not known
        whether there are thoughts."""
        self._cached = delta.cached_tokens or self._cached
        self._gives_text = self._gives_text or bool(delta.texts)
        for place, text in enumerate(self._one_by_one(delta)):
            self._texts.append(text)
            self._ids += delta.token_ids[place : place + 1]
            self._thoughts.feed(text)
            self.is_over = self._thoughts.is_over or self._is_used_up()
            if self.is_over:
                break
        if self._thoughts.has_answer:  # it begins without thoughts, so the guide applies to it all
            self._texts, self._ids = [], []
            return None
        return self._last(delta.finish) if delta.finish and not self.is_over else self._known()

    def _last(self, finish: Finish) -> Delta | None:
        """The model has ended inside its thoughts, or before them."""
        self.is_over = True
        if finish.reason == "length":
            self.is_complete = True
        elif self._ids and self._ids[-1] in self._request.stop_ids:
            self._ids.pop()
            self._texts.pop()
        known = self._known() or Delta()
        return structs.replace(known, finish=finish) if self.is_complete else known

    def _known(self) -> Delta | None:
        if not (self._thoughts.is_open or self.is_over):
            return None
        start, self._sent = self._sent, len(self._texts)
        if self._gives_text:
            return Delta(texts=self._texts[start:], cached_tokens=self._cached)
        return Delta(self._ids[start:], cached_tokens=self._cached)

    def _is_used_up(self) -> bool:
        limit = self._budget
        return limit is not None and self._thoughts.is_open and len(self._texts) >= limit

    def _one_by_one(self, delta: Delta) -> Iterator[str]:
        if delta.texts:
            yield from delta.texts
            return
        for token_id in delta.token_ids:
            yield self._detokenizer.feed([token_id])

    def closing(self) -> Delta | None:
        """The mark that ends the thoughts, if the model has not written it."""
        if not self._thoughts.is_open:
            return None
        text = self._closing_text
        if self._gives_text:
            self._texts.append(text)
            return Delta(texts=[text])
        ids = self._tokenizer.encode(text, add_special=False, parse_special=True)
        self._ids += ids
        self._texts += [text, *[""] * (len(ids) - 1)]
        return Delta(ids)

    def rest(self) -> Request:
        """The request for the rest, after the thoughts."""
        text = "".join(self._texts)
        ids = self._ids
        if self._gives_text:
            ids = self._tokenizer.encode(text, add_special=False, parse_special=True)
        return structs.replace(
            self._request,
            token_ids=[*self._request.token_ids, *ids],
            prompt=self._request.prompt + text,
            max_tokens=max(1, self._request.max_tokens - len(self._texts)),
        )

    def adjusted(self, delta: Delta) -> Delta:
        """The delta as one request would have given it."""
        finish = delta.finish
        if finish is None:
            return delta
        return structs.replace(
            delta,
            finish=structs.replace(
                finish,
                prompt_tokens=len(self._request.token_ids),
                completion_tokens=len(self._texts) + finish.completion_tokens,
                cached_tokens=min(self._cached, finish.cached_tokens),
            ),
        )
