"""The answer to one request so far, over all instances that have worked on it."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import groupby

from msgspec import structs

from dynemo.errors import GuideNotContinued
from dynemo.messages.answer import Delta, Finish
from dynemo.messages.request import CONTINUED_KINDS, Request
from dynemo.tokenizers.base import Tokenizer

#: Seconds that a lost request waits for an instance, before its first token and in its middle.
_FIRST_SECONDS = 30.0
_MIDDLE_SECONDS = 10.0
_MOST_HELD = 8  # tokens of one character
_NOT_CONTINUED = (
    "The instance of this answer was lost, and another one cannot continue it, because its grammar "
    "cannot be advanced past what was written. Send the request again."
)


@dataclass(frozen=True)
class TextCodec:
    """Converts between the ids and the text of an answer: the next instance may need the other."""

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    #: Whether the text of ids ends with a whole character.
    is_whole: Callable[[Sequence[int]], bool] = lambda _: True


def text_codec(tokenizer: Tokenizer) -> TextCodec:
    return TextCodec(
        lambda text: tokenizer.encode(text, add_special=False, parse_special=False),
        lambda ids: "".join(_texts(tokenizer, ids)),
        lambda ids: not tokenizer.decode(ids).endswith("\ufffd"),
    )


def _texts(tokenizer: Tokenizer, ids: Sequence[int]) -> Iterator[str]:
    """The text of each id, with control tokens as a prompt spells them. An incomplete character at
    the end has no text."""
    detokenizer = tokenizer.detokenizer()
    for token_id in ids:
        yield detokenizer.feed([token_id]) or (
            tokenizer.token_text(token_id) or "" if not tokenizer.decode([token_id]) else ""
        )


class MigrationState:
    """The progress of one request."""

    def __init__(
        self,
        request: Request,
        codec: TextCodec,
        latest: float | None = None,
        *,
        limit: int = 0,
    ) -> None:
        """`latest` is the loop time at which the request itself ends; `limit` is how often it may
        move."""
        self.limit = limit
        self.moves = 0  #: in a row, that count against the limit
        self.deaths = 0  #: of engines that it may have ended
        self.is_suspect = False  #: see `suspects.py`
        self.probation = 1  #: tokens at its next instance that end its probation there
        self.cleared_at = 1  #: tokens that clear it
        self.request = request
        self._codec = codec
        self._latest = latest
        self._away_until: float | None = None
        self._answered: list[int | str] = []  # an id or a text for each token
        self._attempts = 0
        self._before = 0  # tokens of earlier attempts
        #: Loop time at which the search for an instance ends; None while none was lost.
        self.deadline: float | None = None

    @property
    def count(self) -> int:
        """Tokens passed on."""
        return len(self._answered)

    def take(self, delta: Delta) -> None:
        self._answered += delta.token_ids or delta.texts
        self.deadline = None

    def in_characters(self, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
        """Gives a guided answer in whole characters: no guide can begin within one."""
        if self.request.guide is None:
            return deltas
        return self._in_characters(deltas)

    async def _in_characters(
        self, deltas: AsyncGenerator[Delta, None]
    ) -> AsyncGenerator[Delta, None]:
        held: list[Delta] = []
        async with aclosing(deltas):
            async for delta in deltas:
                held.append(delta)
                ids = [token for one in held for token in one.token_ids]
                is_part = len(ids) < _MOST_HELD and not self._codec.is_whole(ids)
                if delta.finish is None and not delta.texts and is_part:
                    continue
                for one in held:
                    yield one
                held = []

    @property
    def count_here(self) -> int:
        """Tokens passed on from its present instance."""
        return len(self._answered) - self._before

    def search(self) -> None:
        """Its instance has gone; the search for another one starts. Raises GuideNotContinued."""
        guide = self.request.guide
        if guide is not None and self.count and guide.kind not in CONTINUED_KINDS:
            raise GuideNotContinued(_NOT_CONTINUED)
        seconds = _MIDDLE_SECONDS if self.count else _FIRST_SECONDS
        self.deadline = self._in(seconds)
        self.plane_is_up()

    def wait_at_least(self, seconds: float) -> None:
        """An instance is gone, and may return in that time; no other deadline runs yet."""
        if self.deadline is None:
            self.deadline = self._in(seconds)

    def _in(self, seconds: float) -> float:
        """Returns the loop time in so many seconds, but no later than the request ends."""
        then = asyncio.get_running_loop().time() + seconds
        return then if self._latest is None else min(then, self._latest)

    def away_until(self, seconds: float) -> float:
        """The loop time until which it waits for the request plane: its own deadline, or so many
        seconds from the first call."""
        if self._away_until is None:
            own = self.deadline or self._latest
            self._away_until = self._in(seconds) if own is None else own
        return self._away_until

    def plane_is_up(self) -> None:
        """The request plane has carried it, so its next wait for the plane is another one."""
        self._away_until = None

    def begin_anew(self) -> None:
        self._attempts += 1
        self._before = self.count

    def rest(self) -> Request:
        """The request for the rest of the answer."""
        if self.count == 0:
            return self.request
        ids, text = self._both()
        guide = self.request.guide
        return structs.replace(
            self.request,
            id=f"{self.request.id}-move{self._attempts}",
            token_ids=[*self.request.token_ids, *ids],
            prompt=self.request.prompt + text,
            max_tokens=self.request.max_tokens - self.count,
            min_tokens=max(0, self.request.min_tokens - self.count),
            prompt_logprobs=None,  # they came with the first token
            continued=len(ids),
            guide=guide and structs.replace(guide, written=guide.written + text),
        )

    def _both(self) -> tuple[list[int], str]:
        """The answer so far, as ids and as text."""
        ids: list[int] = []
        text = ""
        for is_text, tokens in groupby(self._answered, lambda token: isinstance(token, str)):
            if is_text:
                more = "".join(map(str, tokens))
                ids += self._encoded(more)
            else:
                given = [token for token in tokens if isinstance(token, int)]
                more = self._codec.decode(given)
                ids += given
            text += more
        return ids, text

    def _encoded(self, text: str) -> list[int]:
        """The ids of a text in which the control tokens that the request shows are spelled."""
        shown = {spelling: token_id for token_id, spelling in self.request.shown.items()}
        if not shown:
            return self._codec.encode(text)
        ids: list[int] = []
        for part in re.split(f"({'|'.join(map(re.escape, shown))})", text):
            if part in shown:
                ids.append(shown[part])
            elif part:
                ids += self._codec.encode(part)
        return ids

    def adjusted(self, delta: Delta) -> Delta:
        """The delta as one uninterrupted stream would have it."""
        finish = delta.finish
        if finish is None or self._before == 0:
            return delta
        finish = structs.replace(
            finish,
            prompt_tokens=len(self.request.token_ids),
            completion_tokens=self._before + finish.completion_tokens,
            cached_tokens=min(finish.cached_tokens, len(self.request.token_ids)),
        )
        return structs.replace(delta, finish=finish)

    def complete(self) -> Finish | None:
        """The finish of a stream that was lost after its last token; None if tokens are missing."""
        prompt_tokens = len(self.request.token_ids)
        last = self._answered[-1] if self._answered else None
        if last in self.request.stop_ids:
            met = last if last in self.request.client_stop_ids else None
            return Finish("stop", prompt_tokens, self.count, matched=met)
        if self.count >= self.request.max_tokens:
            return Finish("length", prompt_tokens, self.count)
        return None


def within(request: Request, context_length: int) -> Request:
    """The request, with `max_tokens` cut to this context if the client set none."""
    left = context_length - len(request.token_ids)
    if not request.is_unbounded or request.max_tokens <= left:
        return request
    return structs.replace(request, max_tokens=left)
