r"""Splits text into words by llama.cpp's patterns.

Python's `re` does not know `\p{L}`, and llama.cpp defines letters in its own way. So the patterns
run on a shadow of the text, as in llama.cpp's `unicode_regex_split`. In the shadow, each character
outside ASCII is one byte. The byte stands for the character's category and for the sets of the
patterns (`[一-龥]`) that it belongs to. The words are then cut out of the text at the same
positions. White space beyond ASCII becomes a vertical tab, which `\s` matches.

A pattern is a regex with `\p{L}` (letter), `\p{N}`, `\p{P}`, `\p{M}`, `\p{S}`, `\p{Lu}` and
`\p{Ll}` (letters except ASCII letters of the other case). Characters beyond ASCII may appear only
inside brackets. The text between two matches is a word, too.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache, partial
from itertools import repeat

from dynemo.tokenizers.gguf.pretokenize import AFMOE_DIGITS, SUPERBPE_DIGITS
from dynemo.tokenizers.gguf.unicode import CATEGORIES, SPACE, category

_FIRST_CODE = 0x80
_SPACE_CODE = 0x0B

# What \p{X} stands for: a category beyond ASCII, and the content of a bracket for ASCII.
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
    """Splits text by a list of patterns. Immutable, so several threads may use it at once."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._sets = _sets_of(patterns)
        self._shadow = _Shadow(self._sets)
        self._steps = [_step(pattern, self._sets) for pattern in patterns]

    def split(self, text: str) -> list[str]:
        """Returns the words in order. Joined, they equal `text`."""
        if not text:
            return []
        is_ascii = text.isascii()
        words = [text if is_ascii else text.translate(self._shadow)]
        for step in self._steps:
            words = [part for word in words for part in step(word)]
        return words if is_ascii else _cut(text, words)


@cache
def splitter(patterns: tuple[str, ...]) -> Splitter:
    """Returns one shared splitter per list of patterns: compiling takes about a millisecond."""
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
    """Maps a code point to the code that stands for it. Filled as characters occur."""

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
        name = category(code_point)
        if name == SPACE:
            return _SPACE_CODE
        members = 0
        for bit, ranges in enumerate(self._sets):
            if any(low <= code_point <= high for low, high in ranges):
                members |= 1 << bit
        return _code_of(members, name)


def _code_of(members: int, name: str) -> int:
    return _FIRST_CODE + members * len(CATEGORIES) + CATEGORIES.index(name)


def _sets_of(patterns: tuple[str, ...]) -> tuple[_Ranges, ...]:
    found: dict[_Ranges, None] = {}
    for pattern in patterns:
        for part in _BRACKET.findall(pattern):
            if part.startswith("[") and (ranges := _ranges(part)):
                found[ranges] = None
    if _code_of((1 << len(found)) - 1, CATEGORIES[-1]) > 0xFF:
        raise ValueError(f"{len(found)} sets of characters do not fit into a byte.")
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
    """Returns the pattern for shadows: categories and sets become codes."""
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
        _code_of(members, name)
        for members in range(1 << len(sets))
        if members & bit
        for name in CATEGORIES
    ]
    return f"{content[:-1]}{''.join(map(chr, codes))}]"


def _class(name: str, set_count: int) -> str:
    beyond_ascii, ascii_content = _CLASSES[name]
    codes = map(_code_of, range(1 << set_count), repeat(beyond_ascii))
    return "".join(map(chr, codes)) + ascii_content


def _digits_of_afmoe(numbers: re.Pattern[str], word: str) -> list[str]:
    """Cuts numbers into groups of three digits from the right.

    The text before a number stays with its first group.
    """
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
    """Cuts numbers into groups of three digits from the right."""
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
