"""The tokens of an answer's first step, after which another request continues it.

The engine's request ends early, and the next one begins with what is kept of its tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec import structs

from dynemo.messages.answer import Delta, Scores
from dynemo.messages.request import Request
from dynemo.tokenizers.base import Tokenizer


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an engine."""

    text: str
    ids: list[int] = field(default_factory=list)  #: one, or none from an engine of texts
    score: bytes = b""


class FirstStep:
    """The tokens so far. Those before `settled` are part of the answer for certain."""

    def __init__(self, request: Request, tokenizer: Tokenizer) -> None:
        self._request = request
        self._tokenizer = tokenizer
        self._detokenizer = tokenizer.detokenizer(request.shown)
        self._ids: list[int] = []
        self.texts: list[str] = []  #: one for each token
        self._scores: list[bytes] = []  # one for each token
        self._prompt_scores: list[bytes] = []  # that were not passed on
        self._sent = 0
        self.settled = 0
        self._gives_text = False
        self._cached = 0

    @property
    def count(self) -> int:
        return len(self.texts)

    def tokens(self, delta: Delta) -> Iterator[Token]:
        self._cached = delta.cached_tokens or self._cached
        scores = delta.scores or Scores()
        self._prompt_scores += scores.prompt
        self._gives_text = self._gives_text or bool(delta.texts)
        for place in range(len(delta.texts) or len(delta.token_ids)):
            score = scores.tokens[place] if place < len(scores.tokens) else b""
            if delta.texts:
                yield Token(delta.texts[place], score=score)
            else:
                token_id = delta.token_ids[place]
                yield Token(self._detokenizer.feed([token_id]), [token_id], score)

    def add(self, token: Token) -> None:
        self._ids += token.ids
        self.texts.append(token.text)
        self._scores.append(token.score)

    def add_text(self, text: str) -> None:
        """Adds a text that the engine has not written, in any number of tokens."""
        ids = [] if self._gives_text else self._encoded(text)
        count = len(ids) or 1
        self._ids += ids
        self.texts += [text, *[""] * (count - 1)]
        self._scores += [b""] * count

    def cut(self, count: int) -> None:
        """Drops all tokens after the first `count`."""
        del self._ids[count:], self.texts[count:], self._scores[count:]
        self.settled = min(self.settled, count)

    def drop_stop(self) -> None:
        """Drops a last token that ends the answer."""
        if self._ids and self._ids[-1] in self._request.stop_ids:
            self.cut(self.count - 1)

    def known(self) -> Delta | None:
        """The settled tokens that were not given before, or None."""
        start, self._sent = self._sent, max(self._sent, self.settled)
        if start == self._sent:
            return None
        prompt, self._prompt_scores = self._prompt_scores, []
        has_scores = self._request.logprobs is not None or bool(prompt)
        return Delta(
            [] if self._gives_text else self._ids[start : self._sent],
            self.texts[start : self._sent] if self._gives_text else [],
            cached_tokens=self._cached,
            scores=Scores(self._scores[start : self._sent], prompt) if has_scores else None,
        )

    def rest(self) -> Request:
        """The request for the rest of the answer."""
        text = "".join(self.texts)
        ids = self._encoded(text) if self._gives_text else self._ids
        return structs.replace(
            self._request,
            token_ids=[*self._request.token_ids, *ids],
            prompt=self._request.prompt + text,
            max_tokens=max(1, self._request.max_tokens - self.count),
            min_tokens=max(0, self._request.min_tokens - self.count),
            prompt_logprobs=None if self.count else self._request.prompt_logprobs,
        )

    def adjusted(self, delta: Delta) -> Delta:
        """A delta of the rest, as one request would have given it."""
        finish = delta.finish
        if finish is None:
            return delta
        return structs.replace(
            delta,
            finish=structs.replace(
                finish,
                prompt_tokens=len(self._request.token_ids),
                completion_tokens=self.count + finish.completion_tokens,
                cached_tokens=min(self._cached, finish.cached_tokens),
            ),
        )

    def _encoded(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special=False, parse_special=True)
