"""Finds stop strings in a stream of text.

The answer ends where the first stop string begins, however the stream is split into pieces. Text is
held back only if it may be the start of a stop string.

All stop strings of a request are one Aho-Corasick automaton, which its choices share. A state is
the longest end of the text that begins a stop string. So the work is linear in the text, whatever
the stop strings are.
"""

import re
from collections.abc import Sequence

from dynemo.errors import RequestError


class StopAutomaton:
    """The stop strings of one request. It does not change, so that choices can share it.

    The states are numbered from the root (0) outwards, so the children of a state have consecutive
    numbers. That takes far less memory than a dict for each state.

    Raises RequestError for an empty stop string.
    """

    __slots__ = ("begins", "children", "depths", "ends", "fails", "firsts")

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise RequestError("A stop string cannot be empty.", param="stop")
        self.children: list[str] = []  #: the letters that lead on from a state
        self.firsts: list[int] = []  #: the state to which the first of these letters leads
        self.fails = [0]  #: the state of the longest proper end that is a state too
        self.depths = [0]  #: how many characters the state holds
        self.ends = [""]  #: the longest stop string that the state ends with, or empty text
        self._build(list(dict.fromkeys(stops)))
        first = re.escape(self.children[0])
        #: Finds a character with which a stop string begins.
        self.begins = re.compile(f"[{first}]") if first else None

    def _build(self, stops: list[str]) -> None:
        groups = [stops]  # for each state, the stop strings that begin with it
        for state, group in enumerate(groups):
            depth = self.depths[state]
            longer: dict[str, list[str]] = {}
            for stop in group:
                if len(stop) > depth:
                    longer.setdefault(stop[depth], []).append(stop)
            self.children.append("".join(longer))
            self.firsts.append(len(groups))
            for letter, stops_below in longer.items():
                fail = self.step(self.fails[state], letter) if state else 0
                whole = next((stop for stop in stops_below if len(stop) == depth + 1), "")
                self.fails.append(fail)
                self.depths.append(depth + 1)
                self.ends.append(whole or self.ends[fail])
                groups.append(stops_below)

    def step(self, state: int, letter: str) -> int:
        """Returns the state after one more character."""
        children = self.children
        at = children[state].find(letter)
        while at < 0 and state:
            state = self.fails[state]
            at = children[state].find(letter)
        return 0 if at < 0 else self.firsts[state] + at


class StopStrings:
    """Searches one stream. Streams do not share an instance.

    The match that begins first in the text wins. If several begin at the same position, the
    shortest one wins. So with the stop strings `abcd` and `bc`, the text `abc` waits for one more
    character.
    """

    __slots__ = ("_automaton", "_begins", "_found", "_held", "_match", "_state", "is_met")

    def __init__(self, automaton: StopAutomaton) -> None:
        self._automaton = automaton
        self._begins = automaton.begins
        self._state = 0
        self._held = ""  # the text of the state
        self._match: int | None = None  # where the best complete match begins, from `_held` on
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
        if self._held:
            return self._search(self._held + text, len(self._held))
        begin = self._begins.search(text)
        return (text, False) if begin is None else self._search(text, begin.start())

    def _search(self, text: str, start: int) -> tuple[str, bool]:
        """`text` begins with the text of the state, and is new from `start` on."""
        automaton, state, match = self._automaton, self._state, self._match
        children, depths = automaton.children, automaton.depths
        for at in range(start, len(text)):
            letter = text[at]
            child = children[state].find(letter)
            if child >= 0:
                state = automaton.firsts[state] + child
            elif state:
                state = automaton.step(automaton.fails[state], letter)
            else:
                continue
            end = automaton.ends[state]
            if end and (match is None or at + 1 - len(end) < match):
                match, self._found = at + 1 - len(end), end
            if match is not None and match <= at + 1 - depths[state]:
                self._held, self.is_met = "", True
                return text[:match], True
        settled = len(text) - depths[state]
        self._state, self._held = state, text[settled:]
        self._match = None if match is None else match - settled
        return text[:settled], False

    def flush(self) -> str:
        """Returns the held text, up to a stop string in it. Call it once, at the end."""
        held, self._held = self._held, ""
        if self._match is None:
            return held
        self.is_met = True
        return held[: self._match]
