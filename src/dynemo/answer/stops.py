"""Finds stop strings in a stream of text.

The answer ends where the first stop string begins, however the stream is split into pieces. Text is
held back only if it may be the start of a stop string.
"""

import re
from collections.abc import Sequence

from dynemo.errors import RequestError


class StopStrings:
    """Searches one stream. Streams do not share an instance.

    The match that begins first in the text wins. If several begin at the same position, the
    shortest one wins. So with the stop strings `abcd` and `bc`, the text `abc` waits for one more
    character. The work is linear in the text for all stop strings.

    Raises RequestError for an empty stop string.
    """

    __slots__ = ("_begins", "_found", "_held", "_match", "_seen", "_stops", "is_met")

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise RequestError("A stop string cannot be empty.", param="stop")
        self._stops = [_Stop(text) for text in dict.fromkeys(stops)]
        first = "".join({re.escape(stop.text[0]) for stop in self._stops})
        self._begins = re.compile(f"[{first}]") if first else None
        self._held = ""
        self._seen = 0  # number of characters fed so far
        self._match: int | None = None  # where the best complete match begins
        self._found = ""  # the stop string of that match
        #: Whether a stop string has ended the stream. `flush` may set it, too.
        self.is_met = False

    @property
    def met(self) -> str | None:
        """The stop string that ended the stream, or None."""
        return self._found if self.is_met else None

    def feed(self, text: str) -> tuple[str, bool]:
        """Returns the text that can be shown, and whether a stop string ended the stream.

        After that end, further text is dropped.
        """
        if self._begins is None:
            return text, False
        if self.is_met:
            return "", True
        if not self._held and self._begins.search(text) is None:
            self._seen += len(text)
            return text, False
        start = self._seen - len(self._held)  # where the held text begins
        self._advance(text)
        self._held += text
        settled = min(self._seen - stop.progress for stop in self._stops)
        if self._match is not None and self._match <= settled:
            self.is_met = True
            settled = self._match
        shown = self._held[: settled - start]
        self._held = "" if self.is_met else self._held[settled - start :]
        return shown, self.is_met

    def flush(self) -> str:
        """Returns the held text, up to a stop string in it. Call it once, at the end."""
        held, self._held = self._held, ""
        if self._match is None or self.is_met:
            return held
        self.is_met = True
        return held[: self._match - (self._seen - len(held))]

    def _advance(self, text: str) -> None:
        for stop in self._stops:
            end = stop.advance(text)
            if end >= 0:
                begin = self._seen + end - len(stop.text)
                if self._match is None or begin < self._match:
                    self._match, self._found = begin, stop.text
        self._seen += len(text)


class _Stop:
    """A stop string, and how much of it ends the text so far (Knuth-Morris-Pratt)."""

    __slots__ = ("_fallback", "_is_done", "progress", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.progress = 0
        self._is_done = False
        self._fallback = _fallbacks(text)

    def advance(self, piece: str) -> int:
        """Returns where in `piece` the stop string is first complete, or -1.

        Later matches do not count.
        """
        if self._is_done:
            return -1
        text, progress, at, size = self.text, self.progress, 0, len(piece)
        while at < size:
            if progress == 0:
                at = piece.find(text[0], at)
                if at < 0:
                    break
                progress, at = 1, at + 1
            elif piece[at] == text[progress]:
                progress, at = progress + 1, at + 1
            else:
                progress = self._fallback[progress - 1]
                continue
            if progress == len(text):
                self._is_done, self.progress = True, 0
                return at
        self.progress = progress
        return -1


def _fallbacks(text: str) -> list[int]:
    """Returns, for each prefix of `text`, the length of its longest border.

    A border is a shorter prefix that the prefix also ends with.
    """
    fallbacks = [0] * len(text)
    length = 0
    for index in range(1, len(text)):
        while length and text[index] != text[length]:
            length = fallbacks[length - 1]
        if text[index] == text[length]:
            length += 1
        fallbacks[index] = length
    return fallbacks
