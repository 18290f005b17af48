"""An answer in two steps: first without a guide, up to its content, and then the rest.

A guide describes the content of an answer, and not the thoughts or the tool call that the model may
write instead. A budget ends thoughts that are too long. Both need the same: the engine's request
ends with the thoughts, and another one continues after their closing mark. Its prompt is in the
engine's cache, so it costs one more step.
"""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace

from msgspec import structs

from dynemo.answer.thoughts import Thinking, Thoughts
from dynemo.messages.answer import Delta, Finish, Scores
from dynemo.messages.request import Request
from dynemo.tokenizers.base import Tokenizer

Generate = Callable[[Request], AsyncGenerator[Delta, None]]


async def think_first(
    generate: Generate, request: Request, thinking: Thinking, tokenizer: Tokenizer
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
            rest = replace(thinking, opens=(), is_open=False, budget=None)
            following = lambda request: think_first(generate, request, rest, tokenizer)  # noqa: E731
    async with aclosing(following(state.rest())) as deltas:
        async for delta in deltas:
            yield state.adjusted(delta)


class _State:
    """The first step: the tokens up to the content, and the request for the second step."""

    def __init__(self, request: Request, thinking: Thinking, tokenizer: Tokenizer) -> None:
        self._request = request
        self._thoughts = Thoughts(thinking)
        self._closing_text = thinking.closing if thinking.closes else ""
        self._budget = thinking.budget
        self._tokenizer = tokenizer
        self._detokenizer = tokenizer.detokenizer(request.shown)
        self._ids: list[int] = []
        self._texts: list[str] = []
        self._scores: list[bytes] = []  # one for each text
        self._prompt_scores: list[bytes] = []  # that were not passed on
        self._sent = 0  # tokens that were passed on
        self._settled = 0  # tokens that the thoughts have taken
        self._gives_text = False
        self._cached = 0
        self.is_complete = False  #: the whole answer has ended
        self.has_ended = False  #: the model has ended its answer before any content

    @property
    def is_used_up(self) -> bool:
        """Whether the thoughts must end now."""
        limit = self._budget
        is_open = self._thoughts.stage == "open"
        return limit is not None and is_open and len(self._texts) >= limit

    @property
    def is_call(self) -> bool:
        """Whether the model calls a tool. Then the first step is the whole answer."""
        return self._thoughts.stage == "call"

    @property
    def is_over(self) -> bool:
        return self._thoughts.is_over or self.is_used_up or self.has_ended

    def take(self, delta: Delta) -> Delta | None:
        """Returns the tokens that are part of the answer for certain, or None."""
        if self.is_call:
            self.is_complete = delta.finish is not None
            return delta
        self._cached = delta.cached_tokens or self._cached
        self._gives_text = self._gives_text or bool(delta.texts)
        scores = delta.scores or Scores()
        self._prompt_scores += scores.prompt
        for place, text in enumerate(self._one_by_one(delta)):
            score = scores.tokens[place] if place < len(scores.tokens) else b""
            self._add(delta.token_ids[place : place + 1], text, score)
            if self.is_over and not self.is_call:
                break
        if self._thoughts.stage == "content":  # the guide applies to it from its start
            self._cut()
            return self._known()
        if delta.finish is None or (self.is_over and not self.is_call):
            return self._known()
        return self._last(delta.finish)

    def _cut(self) -> None:
        """Drops the tokens that are not part of the answer for certain."""
        del self._ids[self._settled :], self._texts[self._settled :], self._scores[self._settled :]

    def _add(self, ids: list[int], text: str, score: bytes) -> None:
        thoughts = self._thoughts
        before = thoughts.stage
        if not thoughts.is_over:
            thoughts.feed(text)
        after = thoughts.stage
        if before == "open" and after in ("content", "closed") and thoughts.rest.strip():
            text = text.removesuffix(thoughts.rest)  # content in the token of the closing mark
            ids = [] if self._gives_text else self._encoded(text)
            score = b""
        self._ids += ids
        self._texts.append(text)
        self._texts += [""] * (len(ids) - 1)
        self._scores += [score, *[b""] * (len(ids) - 1)]
        is_space = before == after == "lead" and self._settled and not thoughts.rest.strip()
        if before == "open" or after in ("open", "call", "closed") or is_space:
            self._settled = len(self._texts)

    def _encoded(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special=False, parse_special=True)

    def _last(self, finish: Finish) -> Delta | None:
        """The answer has ended with no content."""
        self.is_complete = self.is_call or finish.reason == "length"
        if self.is_complete:
            self._settled = len(self._texts)
            return structs.replace(self._known() or Delta(), finish=finish)
        self.has_ended = True
        if self._ids and self._ids[-1] in self._request.stop_ids:
            self._ids.pop()
            self._texts.pop()
        self._settled = min(self._settled, len(self._texts))
        self._cut()
        return self._known()

    def _known(self) -> Delta | None:
        if self._sent >= self._settled:
            return None
        start, self._sent = self._sent, self._settled
        scores = self._scores_since(start)
        if self._gives_text:
            texts = self._texts[start : self._sent]
            return Delta(texts=texts, cached_tokens=self._cached, scores=scores)
        ids = self._ids[start : self._sent]
        return Delta(ids, cached_tokens=self._cached, scores=scores)

    def _scores_since(self, start: int) -> Scores | None:
        prompt, self._prompt_scores = self._prompt_scores, []
        if self._request.logprobs is None and not prompt:
            return None
        return Scores(self._scores[start : self._sent], prompt)

    def _one_by_one(self, delta: Delta) -> Iterator[str]:
        if delta.texts:
            yield from delta.texts
            return
        for token_id in delta.token_ids:
            yield self._detokenizer.feed([token_id])

    def closing(self) -> Delta | None:
        """The mark that ends the thoughts, if the model has not written it."""
        if self._thoughts.stage != "open":
            return None
        text = self._closing_text
        if self._gives_text:
            self._texts.append(text)
            return Delta(texts=[text], scores=self._without_scores(1))
        ids = self._encoded(text)
        self._ids += ids
        self._texts += [text, *[""] * (len(ids) - 1)]
        return Delta(ids, scores=self._without_scores(len(ids)))

    def _without_scores(self, count: int) -> Scores | None:
        """The scores of so many tokens that the model has not written."""
        return None if self._request.logprobs is None else Scores([b""] * count)

    def rest(self) -> Request:
        """The request for the content."""
        text = "".join(self._texts)
        ids = self._ids
        if self._gives_text:
            ids = self._encoded(text)
        return structs.replace(
            self._request,
            token_ids=[*self._request.token_ids, *ids],
            prompt=self._request.prompt + text,
            max_tokens=max(1, self._request.max_tokens - len(self._texts)),
            min_tokens=max(0, self._request.min_tokens - len(self._texts)),
            prompt_logprobs=None if self._texts else self._request.prompt_logprobs,
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
