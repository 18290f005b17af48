"""The tokens of an answer's first step, after which another request continues it.

The engine's request ends early, and the next one begins with what is kept of its tokens.
"""

from collections.abc import Iterator

from msgspec import structs

from dynemo.messages.answer import Delta
from dynemo.messages.request import Request
from dynemo.tokenizers.base import Tokenizer


class FirstStep:
    """The tokens so far. Those before `settled` are part of the answer for certain."""

    def __init__(self, request: Request, tokenizer: Tokenizer) -> None:
        self._request = request
        self._tokenizer = tokenizer
        self._detokenizer = tokenizer.detokenizer(request.shown)
        self._ids: list[int] = []
        self.texts: list[str] = []  #: one for each token
        self._sent = 0
        self.settled = 0
        self._gives_text = False
        self._cached = 0

    @property
    def count(self) -> int:
        return len(self.texts)

    def tokens(self, delta: Delta) -> Iterator[tuple[list[int], str]]:
        """Yields each token of a delta: its id in a list, which is empty for an engine of texts,
        and its text."""
        self._cached = delta.cached_tokens or self._cached
        if delta.texts:
            self._gives_text = True
            for text in delta.texts:
                yield [], text
        else:
            for token_id in delta.token_ids:
                yield [token_id], self._detokenizer.feed([token_id])

    def add(self, ids: list[int], text: str) -> None:
        self._ids += ids
        self.texts.append(text)

    def add_text(self, text: str) -> int:
        """Adds a text that the engine has not written, in any number of tokens. Returns it."""
        if self._gives_text:
            self.texts.append(text)
            return 1
        ids = self._encoded(text)
        self._ids += ids
        self.texts += [text, *[""] * (len(ids) - 1)] if ids else []
        return len(ids)

    def cut(self, count: int) -> None:
        """Drops all tokens after the first `count`."""
        del self._ids[count:], self.texts[count:]
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
        if self._gives_text:
            return Delta(texts=self.texts[start : self._sent], cached_tokens=self._cached)
        return Delta(self._ids[start : self._sent], cached_tokens=self._cached)

    def rest(self) -> Request:
        """The request for the rest of the answer."""
        text = "".join(self.texts)
        ids = self._encoded(text) if self._gives_text else self._ids
        return structs.replace(
            self._request,
            token_ids=[*self._request.token_ids, *ids],
            prompt=self._request.prompt + text,
            max_tokens=max(1, self._request.max_tokens - self.count),
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
