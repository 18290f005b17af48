"""Finds grammars on which llama.cpp would get stuck.

For the text so far, llama.cpp keeps every stack of positions that a grammar allows. At each step
it tries the tokens of the vocabulary, character by character, on each stack, and follows every way.
Two ways that reach the same stack are both followed. So a grammar with many ways for one text takes
exponential time, and one whose stacks multiply takes exponential memory.

This module follows the same rules on texts that it chooses. From each part of a grammar it goes
where most ways are. It refuses a grammar that takes too long to search. A grammar may still hide
its growth from this search.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from heapq import nlargest

from dynemo.engines.guides.verdict import GuideRefused
from dynemo.limits import GRAMMAR_PATHS, GRAMMAR_STACKS


class ElementType(IntEnum):
    """The numbers are those of llama.cpp."""

    END = 0  #: of a rule
    ALTERNATIVE = 1
    RULE = 2
    CHARACTER = 3
    NOT_CHARACTER = 4
    RANGE_END = 5  #: the last character of a range; the first one stands before it
    OR_CHARACTER = 6  #: another character or range of the same class
    ANY_CHARACTER = 7
    TOKEN = 8
    NOT_TOKEN = 9


_TOKENS = (ElementType.TOKEN, ElementType.NOT_TOKEN)
#: Where a part of a rule starts.
_STARTS = (
    ElementType.RULE, ElementType.CHARACTER, ElementType.NOT_CHARACTER,
    ElementType.ANY_CHARACTER, *_TOKENS,
)  # fmt: skip
_LAST_CHARACTER = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)
#: Stands for a token. Tokens are counted like one character of their own.
_A_TOKEN = _LAST_CHARACTER + 1
_EMPTY = 0  #: the stack of a complete text
_TOKEN_CHARACTERS = 12  #: of a long token
_LONG_TEXT = 200  #: characters after which a slow growth of stacks shows
_FEW = 64  #: stacks of a long text, which may still grow
_TRIED = 24  #: characters that are tried at one place
_LONGEST_REST = 32  #: elements of an alternative that are compared
_KEPT = 2  #: texts that are continued, of one length

#: The stacks that a text can lead to, and the number of ways to each.
Ways = dict[int, int]


class Stacks:
    """The stacks of one grammar. A stack is a number, so that equal ones are one."""

    def __init__(self, rules: Sequence[Sequence[tuple[int, int]]]) -> None:
        self.elements = [element for rule in rules for element in rule]
        self._alternatives: list[list[int]] = []  # of each rule: where they start
        start = 0
        for rule in rules:
            places = [i + 1 for i, (kind, _) in enumerate(rule) if kind == ElementType.ALTERNATIVE]
            self._alternatives.append([start, *(start + place for place in places)])
            start += len(rule)
        self._below = [_EMPTY]
        self._top = [-1]
        self._numbers: dict[tuple[int, int], int] = {}
        self._ready: dict[int, tuple[int, ...]] = {_EMPTY: (_EMPTY,)}
        self._classes: dict[int, tuple[bool, list[tuple[int, int]], int]] = {}

    def rule(self, stack: int) -> int:
        """Returns the rule that the top of `stack` refers to, or -1."""
        kind, value = self.elements[self._top[stack]]
        return value if kind == ElementType.RULE else -1

    def push(self, below: int, place: int) -> int:
        """Returns the stack with `place` on top, or `below` at the end of a rule."""
        if self.elements[place][0] <= ElementType.ALTERNATIVE:
            return below
        number = self._numbers.get((below, place))
        if number is None:
            number = self._numbers[below, place] = len(self._top)
            self._below.append(below)
            self._top.append(place)
        return number

    def ready(self, stack: int) -> tuple[int, ...]:
        """Returns the stacks with a character on top that follow from `stack`."""
        found = self._ready.get(stack)
        if found is None:
            found = self._ready[stack] = tuple(self._expanded(stack))
        return found

    def step(self, ways: Ways, character: int) -> Ways:
        """Returns the ways of a text with one more character."""
        after: Ways = {}
        for stack, count in ways.items():
            if stack == _EMPTY:
                continue
            is_excluding, ranges, end = self._class(self._top[stack])
            if any(a <= character <= b for a, b in ranges) != is_excluding:
                for other in self.ready(self.push(self._below[stack], end)):
                    after[other] = after.get(other, 0) + count
        _check(after)
        return after

    def check_classes(self) -> None:
        """Raises GuideRefused for a class without a character."""
        for place, (kind, _) in enumerate(self.elements):
            if kind in _STARTS and kind != ElementType.RULE:
                self._class(place)

    def characters(self, ways: Ways) -> set[int]:
        """Returns some characters that may follow: the borders of the classes."""
        found: set[int] = set()
        for stack in ways:
            if stack != _EMPTY and len(found) < _TRIED:
                is_excluding, ranges, _ = self._class(self._top[stack])
                for a, b in ranges[:_TRIED]:
                    found |= {a - 1, b + 1} if is_excluding else {a, b}
        return found

    def _expanded(self, stack: int) -> Iterable[int]:
        left, seen = [stack], set()
        while left:
            stack = left.pop()
            if stack in seen:
                continue
            seen.add(stack)
            if len(seen) > GRAMMAR_PATHS:
                raise GuideRefused(f"one text may follow it in {GRAMMAR_PATHS} ways")
            if stack != _EMPTY:
                kind, value = self.elements[self._top[stack]]
                if kind == ElementType.RULE:
                    below = self.push(self._below[stack], self._top[stack] + 1)
                    left += [self.push(below, place) for place in self._alternatives[value]]
                    continue
            yield stack

    def _class(self, place: int) -> tuple[bool, list[tuple[int, int]], int]:
        """Returns whether the class at `place` excludes its ranges, the ranges, and its end."""
        found = self._classes.get(place)
        if found is None:
            found = self._classes[place] = self._read_class(place)
        return found

    def _read_class(self, place: int) -> tuple[bool, list[tuple[int, int]], int]:
        kind, value = self.elements[place]
        if kind in _TOKENS:
            return kind == ElementType.NOT_TOKEN, [(_A_TOKEN, _A_TOKEN)], place + 1
        is_excluding = kind == ElementType.NOT_CHARACTER
        ranges: list[tuple[int, int]] = []
        while not ranges or kind == ElementType.OR_CHARACTER:
            after, last = self.elements[place + 1]
            if after == ElementType.RANGE_END:
                ranges.append((value, last))
                place += 2
            else:
                is_any = kind == ElementType.ANY_CHARACTER
                ranges.append((0, _LAST_CHARACTER) if is_any else (value, value))
                place += 1
            kind, value = self.elements[place]
        if not is_excluding and not any(map(_is_possible, ranges)):
            raise GuideRefused(f"no character is in the class {_shown(ranges)}")
        return is_excluding, ranges, place


def check_growth(rules: Sequence[Sequence[tuple[int, int]]], seconds: float) -> None:
    """Raises GuideRefused if a text is found that llama.cpp could not follow, or if the search
    needs more CPU time.

    The first rule is the start.
    """
    end = time.process_time() + seconds
    stacks = Stacks(rules)
    stacks.check_classes()
    whole, *parts = _starts(stacks)
    for start in (whole, *parts):
        _begin(stacks, start, end)
    for start in (whole, *parts):
        _go_wide(stacks, start, end)
    repeated = _repeated(rules)
    far = {stacks.rule(start): start for start in parts if stacks.rule(start) in repeated}
    for start in (whole, *far.values()):
        _go_far(stacks, start, end)


def _starts(stacks: Stacks) -> list[int]:
    """Returns the stacks from which the search begins, without equal ones: the whole grammar first.

    Only a reference to a rule opens several ways. So the search needs no start at a character.
    """
    elements = stacks.elements
    found: dict[tuple[tuple[int, int], ...], int] = {}
    rest: list[tuple[int, int]] = []  # the elements from a place to the end of its alternative
    for place in range(len(elements) - 1, -1, -1):
        kind = elements[place][0]
        rest = [] if kind <= ElementType.ALTERNATIVE else [elements[place], *rest[:_LONGEST_REST]]
        if kind == ElementType.RULE:
            found[tuple(rest)] = place
    whole = next(i for i, (kind, _) in enumerate(elements) if kind in _STARTS)
    return [stacks.push(_EMPTY, place) for place in (whole, *sorted(found.values()))]


def _repeated(rules: Sequence[Sequence[tuple[int, int]]]) -> set[int]:
    """Returns the rules that may lead back to themselves, and those between two such rules.

    Only with these the stacks may grow for as long as the text does.
    """
    below = [{value for kind, value in rule if kind == ElementType.RULE} for rule in rules]
    above: list[set[int]] = [set() for _ in rules]
    for number, others in enumerate(below):
        for other in others:
            above[other].add(number)
    left = set(range(len(rules)))
    for ways, back in ((below, above), (above, below)):
        counts = [len(others & left) for others in ways]
        ends = [number for number in left if not counts[number]]
        while ends:
            number = ends.pop()
            left.discard(number)
            for other in back[number] & left:
                counts[other] -= 1
                if not counts[other]:
                    ends.append(other)
    return left


def _begin(stacks: Stacks, start: int, end: float) -> None:
    """Looks for an empty text with many stacks."""
    _check_time(end)
    _check(dict.fromkeys(stacks.ready(start), 1))


def _go_wide(stacks: Stacks, start: int, end: float) -> None:
    """Looks for a token with many ways."""
    kept: list[Ways] = [dict.fromkeys(stacks.ready(start), 1)]
    for _ in range(_TOKEN_CHARACTERS):
        after = [step for ways in kept for step in _steps(stacks, ways)]
        after.sort(key=_total)
        kept = nlargest(_KEPT, {frozenset(ways): ways for ways in after}.values(), key=_total)
        _check_time(end)
        if not kept:
            return


def _go_far(stacks: Stacks, start: int, end: float) -> None:
    """Looks for a long text with many stacks."""
    ways: Ways = dict.fromkeys(stacks.ready(start), 1)
    at_half = 0
    for length in range(_LONG_TEXT):
        most: Ways = max(_steps(stacks, ways), key=_count, default={})
        ways = dict.fromkeys(most, 1)
        _check_time(end)
        if not ways:
            return
        if length == _LONG_TEXT // 2:
            at_half = len(ways)
    if len(ways) > max(_FEW, at_half * 3 // 2):
        raise GuideRefused("the longer the text, the more places in it the text may lead to")


def _check_time(end: float) -> None:
    if time.process_time() > end:
        raise GuideRefused("it has too many parts that can stand at one place")


def _steps(stacks: Stacks, ways: Ways) -> Iterator[Ways]:
    for character in sorted(stacks.characters(ways)):
        if after := stacks.step(ways, character):
            yield after


def _is_possible(characters: tuple[int, int]) -> bool:
    """Whether a text may have one of them. Surrogates do not count."""
    first, last = characters
    starts = first if first not in _SURROGATES else _SURROGATES.stop
    return starts <= min(last, _LAST_CHARACTER)


def _shown(ranges: Sequence[tuple[int, int]]) -> str:
    names = [f"U+{a:04X}" if a == b else f"U+{a:04X} to U+{b:04X}" for a, b in ranges[:_FEW]]
    return ", ".join(names)


def _count(ways: Ways) -> int:
    return len(ways)


def _total(ways: Ways) -> int:
    return sum(ways.values())


def _check(ways: Ways) -> None:
    if len(ways) > GRAMMAR_STACKS:
        raise GuideRefused(f"one text may lead to {GRAMMAR_STACKS} places in it")
    if _total(ways) > GRAMMAR_PATHS:
        raise GuideRefused(f"one text may follow it in {GRAMMAR_PATHS} ways")
