"""Reads a regex in the common part of the syntaxes of Rust and of JSON schemas."""

from dynemo.engines.guides.rest.errors import CannotContinue
from dynemo.engines.guides.rest.regex import Alt, Chars, Item, Node, Repeat, cat

_LAST = 0x10FFFF
_ANY = Chars(((0, _LAST),))
_NOT_NEWLINE = Chars(((10, 10),), is_negated=True)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
#: Classes of ASCII, as llguidance has them in JSON schemas.
_ASCII: dict[str, tuple[Item, ...]] = {
    "d": ((48, 57),),
    "D": ((0, 47), (58, _LAST)),
    "w": ((48, 57), (65, 90), (95, 95), (97, 122)),
    "W": ((0, 47), (58, 64), (91, 94), (96, 96), (123, _LAST)),
}
_HEX = {"x": 2, "u": 4}


def parse_regex(pattern: str) -> Node:
    """Returns a regex that matches a whole text. Raises CannotContinue."""
    return _read(pattern, is_ascii=False)[0]


def parse_search(pattern: str) -> Node:
    """Returns the regex of the texts in which a schema's `pattern` is found.

    Raises CannotContinue.
    """
    node, is_begin, is_end = _read(pattern, is_ascii=True)
    anything = (Repeat(_ANY, 0, None),)
    return cat(*(() if is_begin else anything), node, *(() if is_end else anything))


def _read(pattern: str, *, is_ascii: bool) -> tuple[Node, bool, bool]:
    """Returns a regex without its anchors, and whether it had each."""
    is_begin, is_end = pattern.startswith("^"), pattern.endswith("$")
    inner = pattern.removeprefix("^").removesuffix("$")
    if is_end and (len(inner) - len(inner.rstrip("\\"))) % 2:  # the last one is escaped
        is_end, inner = False, f"{inner}$"
    parser = _Parser(inner, is_ascii=is_ascii)
    node = parser.whole()
    if parser.has_choices and (is_begin or is_end):
        raise CannotContinue("its regex has an anchor in one of several choices")
    return node, is_begin, is_end


class _Parser:
    def __init__(self, pattern: str, *, is_ascii: bool) -> None:
        self._pattern = pattern
        self._place = 0
        self._is_ascii = is_ascii
        self.has_choices = False  #: outside of groups

    def whole(self) -> Node:
        parts = self._choices()
        self.has_choices = len(parts) > 1
        node = _alt(parts)
        if self._place < len(self._pattern):
            raise CannotContinue("its regex is not valid")
        return node

    def _peek(self) -> str:
        return self._pattern[self._place : self._place + 1]

    def _next(self) -> str:
        character = self._peek()
        if not character:
            raise CannotContinue("its regex is not valid")
        self._place += 1
        return character

    def _skip(self, text: str) -> bool:
        is_there = self._pattern.startswith(text, self._place)
        self._place += len(text) * is_there
        return is_there

    def _choices(self) -> list[Node]:
        parts = [self._sequence()]
        while self._skip("|"):
            parts.append(self._sequence())
        return parts

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while (character := self._peek()) and character not in "|)":
            parts.append(self._repeated(self._atom()))
        return cat(*parts)

    def _repeated(self, node: Node) -> Node:
        while (character := self._peek()) and character in "*+?{":
            self._place += 1
            if character == "{":
                least, most = self._counts()
            else:
                least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[character]
            self._skip("?")  # lazy, which matches the same texts
            node = Repeat(node, least, most)
        return node

    def _counts(self) -> tuple[int, int | None]:
        end = self._pattern.find("}", self._place)
        first, comma, last = self._pattern[self._place : end].partition(",")
        is_valid = end > 0 and first.isdecimal() and (not last or last.isdecimal())
        if not is_valid or len(first) > 6 or len(last) > 6:
            raise CannotContinue("its regex has a repetition of an unknown form")
        self._place = end + 1
        return int(first), int(last) if last else None if comma else int(first)

    def _atom(self) -> Node:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return self._class()
        if character == ".":
            return _NOT_NEWLINE
        if character == "\\":
            return Chars(self._escape())
        if character in "^$*+?{":
            raise CannotContinue("its regex has an anchor inside")
        return _one(character)

    def _group(self) -> Node:
        if self._skip("?"):
            if self._skip("P<") or (self._skip("<") and self._peek() not in ("=", "!")):
                while self._next() != ">":
                    pass
            elif not self._skip(":"):
                raise CannotContinue("its regex has flags or looks around")
        node = _alt(self._choices())
        if not self._skip(")"):
            raise CannotContinue("its regex is not valid")
        return node

    def _class(self) -> Node:
        is_negated = self._skip("^")
        items: list[Item] = []
        while not items or not self._skip("]"):  # a bracket that comes first is in the class
            first = self._class_item()
            if self._peek() == "-" and not self._pattern.startswith("-]", self._place):
                self._place += 1
                first = _range(first, self._class_item())
            items += first
        return Chars(tuple(items), is_negated)

    def _class_item(self) -> tuple[Item, ...]:
        character = self._next()
        if character == "\\":
            return self._escape()
        if character == "[" or (character in "&~-" and self._peek() == character):
            raise CannotContinue("its regex has a class within a class")
        return ((ord(character), ord(character)),)

    def _escape(self) -> tuple[Item, ...]:
        character = self._next()
        if character in "dDwWsS":
            return _ASCII.get(character, (character,)) if self._is_ascii else (character,)
        if character in _HEX:
            code = self._code(_HEX[character])
            return ((code, code),)
        meant = _ESCAPES.get(character, character)
        if meant == character and (character.isalnum() or not character.isascii()):
            raise CannotContinue(f"its regex has the escape \\{character}")
        return ((ord(meant), ord(meant)),)

    def _code(self, length: int) -> int:
        if self._skip("{"):
            end = self._pattern.find("}", self._place)
            digits, after = self._pattern[self._place : end], end + 1
        else:
            after = self._place + length
            digits = self._pattern[self._place : after]
        self._place = after
        try:
            return int(digits, 16)
        except ValueError:
            raise CannotContinue("its regex is not valid") from None


def _alt(parts: list[Node]) -> Node:
    return parts[0] if len(parts) == 1 else Alt(tuple(parts))


def _range(first: tuple[Item, ...], last: tuple[Item, ...]) -> tuple[Item, ...]:
    match first, last:
        case ((int(low), _),), ((_, int(high)),) if low <= high:
            return ((low, high),)
    raise CannotContinue("its regex has a range of an unknown form")


def _one(character: str) -> Chars:
    return Chars(((ord(character), ord(character)),))
