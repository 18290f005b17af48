"""Gives each token's log probability together with the token's text. Pure.

An engine gives a score with each token, but a text may wait: for the rest of a character, or until
it is clear that no stop string begins in it. A token's entry waits with its text. So the entries of
an answer, joined, are always its text, also where a stop string cuts a token.
"""

from codecs import utf_8_decode
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec import structs

from dynemo.errors import EngineError
from dynemo.messages.answer import TokenLogprob
from dynemo.messages.scores import UNKNOWN_ID, unpack_score

#: The bytes of a token in a text. A control token has those of its spelling.
BytesOf = Callable[[int], bytes]


@dataclass(slots=True)
class _Token:
    """A token whose entry is not made yet, and the text that it completes."""

    pairs: list[tuple[int, float]]
    text: str


@dataclass(slots=True)
class _Unit:
    """Some whole characters, and the tokens that they come from."""

    text: str
    entries: list[TokenLogprob]


class TokenEntries:
    """The entries of one choice. Add every token in order, then take those of the text shown.

    `is_control` tells whether a token has no text of its own.
    """

    __slots__ = ("_bytes_of", "_is_control", "_is_first", "_run", "_settled", "_units")

    def __init__(self, bytes_of: BytesOf, is_control: Callable[[int], bool]) -> None:
        self._bytes_of = bytes_of
        self._is_control = is_control
        self._run: list[_Token] = []  # since the last token that ended with a whole character
        self._is_first = True
        self._units: deque[_Unit] = deque()
        self._settled = 0  # characters that may be shown, and belong to the first units

    def add(self, text: str, score: bytes) -> None:
        """Adds a token and the text that it completes. Raises EngineError for an invalid score."""
        pairs = _pairs(score)
        if not text:
            # A token without a text is a part of a character, or a control token.
            if pairs and not (pairs[0][0] != UNKNOWN_ID and self._is_control(pairs[0][0])):
                self._run.append(_Token(pairs, ""))
            return
        self._run.append(_Token(pairs, text))
        self._close(is_final=False)

    def flush(self, text: str) -> None:
        """Adds the text of an incomplete character at the end."""
        if text:
            self._run.append(_Token([], text))
        self._close(is_final=True)

    def take(self, characters: int) -> tuple[tuple[TokenLogprob, ...], int]:
        """Takes so many more characters that may be shown.

        Returns the entries that are complete, and the number of the characters that they stand for.
        """
        self._settled += characters
        taken: list[TokenLogprob] = []
        shown = 0
        while self._units and len(self._units[0].text) <= self._settled:
            unit = self._units.popleft()
            self._settled -= len(unit.text)
            shown += len(unit.text)
            taken += unit.entries
        return tuple(taken), shown

    def cut(self) -> tuple[TokenLogprob, ...]:
        """Returns the entries of a token that a stop string has cut. Drops all that follow."""
        self._close(is_final=True)
        if not self._units or not self._settled:
            return ()
        unit = self._units.popleft()
        self._units.clear()
        return _cut(unit.entries, unit.text[: self._settled])

    def _close(self, *, is_final: bool) -> None:
        """Makes the entries of the run, unless its last token begins another character."""
        text = "".join([token.text for token in self._run])
        if not text:
            return
        scored = [token for token in self._run if token.pairs]
        ids = [token.pairs[0][0] for token in scored]
        parts = self._parts(ids, text, is_final=is_final)
        if parts is None:
            return
        texts = [token.text for token in scored]
        if scored:
            texts[-1] += text[len("".join(texts)) :]
        rows = zip(scored, texts, parts, strict=True)
        entries = [self._entry(token.pairs, own, part) for token, own, part in rows]
        self._units.append(_Unit(text, entries))
        self._run = []
        self._is_first = False

    def _parts(self, ids: list[int], text: str, *, is_final: bool) -> list[bytes] | None:
        """Returns each token's bytes of a text; None if the last token begins a character."""
        if UNKNOWN_ID not in ids:
            parts = [self._bytes_of(token_id) for token_id in ids]
            data = b"".join(parts)
            found, used = utf_8_decode(data, "replace", is_final)
            extra = len(found) - len(text)
            if self._is_first and extra > 0 and found == " " * extra + text:
                parts[0] = parts[0][extra:]  # the vocabulary's space before a text
                found = text
            if found == text:
                return parts if used == len(data) else None
            if is_final and found.startswith(text):  # a stop string has come first
                return parts
        return self._divided(ids, text.encode())

    def _divided(self, ids: list[int], data: bytes) -> list[bytes]:
        """Divides the bytes of a text among tokens of which not all are known."""
        before: list[bytes] = []
        for token_id in ids[:-1]:
            part = b"" if token_id == UNKNOWN_ID else self._bytes_of(token_id)
            if not data.startswith(part):
                part = b""
            before.append(part)
            data = data[len(part) :]
        return [*before, data] if ids else []

    def _entry(self, pairs: Sequence[tuple[int, float]], text: str, data: bytes) -> TokenLogprob:
        (chosen, logprob), *likeliest = pairs
        top = tuple(
            spelled(self._bytes_of(token_id), value, token_id) for token_id, value in likeliest
        )
        return TokenLogprob(text, logprob, data, top, chosen)


def prompt_entries(
    ids: Sequence[int], scores: Sequence[bytes], bytes_of: BytesOf
) -> tuple[TokenLogprob | None, ...]:
    """Returns the entries of a prompt. A token without a score has None."""
    entries: list[TokenLogprob | None] = []
    for token_id, score in zip(ids, scores, strict=False):
        pairs = _pairs(score)
        if not pairs:
            entries.append(None)
            continue
        top = tuple(spelled(bytes_of(other), value, other) for other, value in pairs[1:])
        entry = spelled(bytes_of(token_id), pairs[0][1], token_id)
        entries.append(structs.replace(entry, top=top))
    return tuple(entries)


def spelled(data: bytes, logprob: float, token_id: int) -> TokenLogprob:
    """Returns the entry of a token by itself."""
    return TokenLogprob(data.decode("utf-8", "replace"), logprob, data, (), token_id)


def _cut(entries: list[TokenLogprob], text: str) -> tuple[TokenLogprob, ...]:
    """Returns the entries of the beginning of a unit, of which `text` is left."""
    left = _bytes_before(b"".join([entry.bytes for entry in entries]), text)
    kept: list[TokenLogprob] = []
    for entry in entries:
        if left <= 0:
            break
        said = entry.text[: len(text)]
        kept.append(structs.replace(entry, text=said, bytes=entry.bytes[:left]))
        left -= len(entry.bytes)
        text = text[len(said) :]
    if kept and text:
        kept[-1] = structs.replace(kept[-1], text=kept[-1].text + text)
    return tuple(kept)


def _bytes_before(data: bytes, text: str) -> int:
    """Returns how many bytes of `data` decode to `text`, its beginning."""
    if data.startswith(text.encode()):
        return len(text.encode())
    ends = range(1, len(data) + 1)
    return next((end for end in ends if data[:end].decode(errors="replace") == text), len(data))


def _pairs(score: bytes) -> list[tuple[int, float]]:
    try:
        return unpack_score(score)
    except ValueError as error:
        raise EngineError(
            f"The engine gave a log probability that is not valid: {error}."
        ) from None
