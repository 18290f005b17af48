r"""Splits text into words by llama.cpp's patterns.

Python's `re` knows no `\p{L}`, and llama.cpp has its own idea of what a letter is. So the patterns
run on a shadow of the text, as they do in llama.cpp's `unicode_regex_split`: each character that
is not ASCII is replaced by one byte for its category and for the sets of the patterns (`[一-龥]`)
that it is in. Words are then cut out of the text at the same places. White space beyond ASCII
becomes a vertical tab, which `\s` matches.

A pattern is a regex with `\p{L}` (letter), `\p{N}`, `\p{P}`, `\p{M}`, `\p{S}`, `\p{Lu}` and
`\p{Ll}` (letters but ASCII ones of the other case); characters beyond ASCII stand inside brackets
only. What lies between two matches is a word, too.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache, partial
from itertools import repeat

from dynemo.tokenizers.gguf.pretokenize import AFMOE_DIGITS, SUPERBPE_DIGITS
from dynemo.tokenizers.gguf.unicode import CATEGORIES, SPACE, category

_FIRST_CODE = 0x80
_SPACE_CODE = 0x0B

# What \p{X} stands for: categories beyond ASCII, and a bracket's content for ASCII.
_CLASSES = {
    "L": ("L", "A-Za-z"),
    "Lu": ("L", "A-Z"),
    "Ll": ("L", "a-z"),
    "N": ("N", "0-9"),
    "P": ("P", r"!-#%-*,-/:-;?-@\[-\]_{}"),
    "M": ("M", ""),
    "S": ("S", r"$+<->^`|~"),
}

_Ranges = tuple[tuple[int, int], ...]
_Step = Callable[[str], Iterable[str]]

_BRACKET = re.compile(r"\\p\{\w+\}|\\.|\[(?:\\p\{\w+\}|\\.|[^\\\]])*\]|[^\\\[]+", re.DOTALL)
_ITEM = re.compile(r"\\p\{(\w+)\}|\\.|([^\x00-\x7f])(?:-([^\x00-\x7f]))?|[\x00-\x7f]", re.DOTALL)


class Splitter:
    """Cuts text by a list of patterns. Immutable; may be used from several threads."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._sets = _sets_of(patterns)
        self._shadow = _Shadow(self._sets)
        self._steps = [_step(pattern, self._sets) for pattern in patterns]

    def split(self, text: str) -> list[str]:
        """The words, in order; joined they are `text`."""
        if not text:
            return []
        is_ascii = text.isascii()
        words = [text if is_ascii else text.translate(self._shadow)]
        for step in self._steps:
            words = [part for word in words for part in step(word)]
        return words if is_ascii else _cut(text, words)


@cache
def splitter(patterns: tuple[str, ...]) -> Splitter:
    """One splitter for each list of patterns: compiling takes about a millisecond."""
    return Splitter(patterns)


def _cut(text: str, shadows: list[str]) -> list[str]:
    words = []
    start = 0
    for shadow in shadows:
        end = start + len(shadow)
        words.append(text[start:end])
        start = end
    return words


class _Shadow(dict[int, int]):
    """Code point -> the code that stands for it; filled as characters are met."""

    def __init__(self, sets: tuple[_Ranges, ...]) -> None:
        super().__init__()
        self._sets = sets

    def __missing__(self, code_point: int) -> int:
        code = self._code(code_point)
        self[code_point] = code
        return code

    def _code(self, code_point: int) -> int:
        if code_point < 0x80:
            return code_point
        kind = category(code_point)
        if kind == SPACE:
            return _SPACE_CODE
        members = 0
        for bit, ranges in enumerate(self._sets):
            if any(low <= code_point <= high for low, high in ranges):
                members |= 1 << bit
        return _code_of(members, kind)


def _code_of(members: int, kind: str) -> int:
    return _FIRST_CODE + members * len(CATEGORIES) + CATEGORIES.index(kind)


def _sets_of(patterns: tuple[str, ...]) -> tuple[_Ranges, ...]:
    found: dict[_Ranges, None] = {}
    for pattern in patterns:
        for part in _BRACKET.findall(pattern):
            if part.startswith("[") and (ranges := _ranges(part)):
                found[ranges] = None
    if _code_of((1 << len(found)) - 1, CATEGORIES[-1]) > 0xFF:
        raise ValueError(f"{len(found)} sets of characters do not fit into a byte")
    return tuple(found)


def _ranges(bracket: str) -> _Ranges:
    return tuple(
        (ord(item[2]), ord(item[3] or item[2])) for item in _ITEM.finditer(bracket) if item[2]
    )


def _step(pattern: str, sets: tuple[_Ranges, ...]) -> _Step:
    if pattern == AFMOE_DIGITS:
        return partial(_digits_of_afmoe, re.compile(_translate(r"\p{N}+", sets), re.ASCII))
    if pattern == SUPERBPE_DIGITS:
        return _digits_of_superbpe
    regex = re.compile(f"({_translate(pattern, sets)})", re.ASCII)
    return lambda word: filter(None, regex.split(word))


def _translate(pattern: str, sets: tuple[_Ranges, ...]) -> str:
    """The pattern for shadows: categories and sets become codes."""
    out = []
    for part in _BRACKET.findall(pattern):
        if part.startswith("["):
            out.append(_translate_bracket(part, sets))
        elif part.startswith(r"\p"):
            out.append(f"[{_class(part[3:-1], len(sets))}]")
        else:
            out.append(part)
    return "".join(out)


def _translate_bracket(bracket: str, sets: tuple[_Ranges, ...]) -> str:
    ranges = _ranges(bracket)
    out = []
    for item in _ITEM.finditer(bracket):
        if item[1]:
            out.append(_class(item[1], len(sets)))
        elif not item[2]:
            out.append(item[0])
    content = "".join(out)
    if not ranges:
        return content
    bit = 1 << sets.index(ranges)
    codes = [
        _code_of(members, kind)
        for members in range(1 << len(sets))
        if members & bit
        for kind in CATEGORIES
    ]
    return f"{content[:-1]}{''.join(map(chr, codes))}]"


def _class(name: str, set_count: int) -> str:
    kind, of_ascii = _CLASSES[name]
    codes = map(_code_of, range(1 << set_count), repeat(kind))
    return "".join(map(chr, codes)) + of_ascii


def _digits_of_afmoe(numbers: re.Pattern[str], word: str) -> list[str]:
    """Groups of three from the right; what stands before a number stays with its first group."""
    parts = []
    start = 0
    for number in numbers.finditer(word):
        end = number.end()
        first = number.start() + (end - number.start()) % 3
        for cut in range(first if first > number.start() else first + 3, end + 1, 3):
            parts.append(word[start:cut])
            start = cut
    if start < len(word):
        parts.append(word[start:])
    return parts


_ASCII_DIGITS = re.compile("[0-9]+")


def _digits_of_superbpe(word: str) -> list[str]:
    """Groups of three from the right."""
    parts = []
    start = 0
    for number in _ASCII_DIGITS.finditer(word):
        for cut in range(number.end() - (number.end() - number.start()) // 3 * 3, number.end(), 3):
            if cut > start:
                parts.append(word[start:cut])
                start = cut
    if start < len(word):
        parts.append(word[start:])
    return parts
