"""What one request has been answered so far, over all the instances that it was asked of."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from msgspec import structs

from dynemo.messages.answer import Delta, Finish
from dynemo.messages.request import Request
from dynemo.tokenizers.base import Tokenizer

#: Seconds that a stream waits in its middle for an instance that could take it on.
_PATIENCE = 10.0


@dataclass(frozen=True)
class TextCodec:
    """What makes ids of an answer's text and text of its ids: one instance may give what the next
    one does not take."""

    encode: Callable[[str], list[int]]
    spell: Callable[[Sequence[int]], str]


def text_codec(tokenizer: Tokenizer) -> TextCodec:
    return TextCodec(
        lambda text: tokenizer.encode(text, add_special=False, parse_special=False),
        lambda ids: "".join(_spelled(tokenizer, ids)),
    )


def _spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> Iterator[str]:
    """The text of each id, control tokens as they are written in a prompt. Half a character at the
    end is left out, as there is no text for it."""
    detokenizer = tokenizer.detokenizer()
    for token_id in ids:
        yield detokenizer.feed([token_id]) or (
            tokenizer.token_text(token_id) or "" if not tokenizer.decode([token_id]) else ""
        )


class MigrationState:
    def __init__(self, request: Request, words: TextCodec) -> None:
        self._request = request
        self._words = words
        self._answered: list[int | str] = []  # an id or a text for each token
        self._attempts = 0
        self._before = 0  # tokens that earlier attempts have made
        #: Loop time until which somebody is looked for; None while no instance has been lost.
        self.deadline: float | None = None

    @property
    def count(self) -> int:
        """Tokens passed on."""
        return len(self._answered)

    def take(self, delta: Delta) -> None:
        self._answered += delta.token_ids or delta.texts
        self.deadline = None

    def lost(self) -> None:
        """Its instance has gone, and from here on it looks for another."""
        self.deadline = asyncio.get_running_loop().time() + _PATIENCE

    def begin_anew(self) -> None:
        self._attempts += 1
        self._before = self.count

    def rest(self) -> Request:
        """What is left to ask for."""
        if self.count == 0:
            return self._request
        ids, text = self._both()
        return structs.replace(
            self._request,
            id=f"{self._request.id}-move{self._attempts}",
            token_ids=[*self._request.token_ids, *ids],
            prompt=self._request.prompt + text,
            max_tokens=self._request.max_tokens - self.count,
            continued=len(ids),
        )

    def _both(self) -> tuple[list[int], str]:
        """What was answered, as ids and as text."""
        ids: list[int] = []
        text = ""
        for is_text, tokens in groupby(self._answered, lambda token: isinstance(token, str)):
            if is_text:
                more = "".join(map(str, tokens))
                ids += self._words.encode(more)
            else:
                given = [token for token in tokens if isinstance(token, int)]
                more = self._words.spell(given)
                ids += given
            text += more
        return ids, text

    def adjusted(self, delta: Delta) -> Delta:
        """The delta as one undisturbed stream would have it."""
        finish = delta.finish
        if finish is None or self._before == 0:
            return delta
        finish = structs.replace(
            finish,
            prompt_tokens=len(self._request.token_ids),
            completion_tokens=self._before + finish.completion_tokens,
            cached_tokens=min(finish.cached_tokens, len(self._request.token_ids)),
        )
        return structs.replace(delta, finish=finish)

    def complete(self) -> Finish | None:
        """The finish of a stream that was lost after its last token."""
        prompt_tokens = len(self._request.token_ids)
        if self._answered and self._answered[-1] in self._request.stop_ids:
            return Finish("stop", prompt_tokens, self.count)
        if self.count >= self._request.max_tokens:
            return Finish("length", prompt_tokens, self.count)
        return None
