"""Regular expressions as values: what of one is left after a text, written as a regex again.

A regex is a tree of `Chars`, `Cat`, `Alt` and `Repeat`. `after` gives the trees that may follow a
character (Antimirov's partial derivatives): together they are the rest. There are at most as many
as the regex has parts.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

#: A range of code points, or the letter of a class such as `\w`.
Item = tuple[int, int] | str

_CACHED = 4096
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of a class."""

    items: tuple[Item, ...]
    is_negated: bool = False
    minus: tuple[Item, ...] = ()

    def has(self, character: str) -> bool:
        is_in = any(_is_in(character, item) for item in self.items) != self.is_negated
        return is_in and not any(_is_in(character, item) for item in self.minus)


@dataclass(frozen=True, slots=True)
class Cat:
    parts: "tuple[Node, ...]" = ()


@dataclass(frozen=True, slots=True)
class Alt:
    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Repeat:
    part: "Node"
    least: int
    most: int | None  #: None: any number


Node = Chars | Cat | Alt | Repeat
EMPTY = Cat()


def literal(text: str) -> Node:
    return Cat(tuple(Chars(((ord(character), ord(character)),)) for character in text))


def cat(*parts: Node) -> Node:
    flat: list[Node] = []
    for part in parts:
        flat += part.parts if isinstance(part, Cat) else [part]
    return flat[0] if len(flat) == 1 else Cat(tuple(flat))


@lru_cache(_CACHED)
def is_nullable(node: Node) -> bool:
    """Whether the empty text matches."""
    match node:
        case Chars():
            return False
        case Cat(parts):
            return all(map(is_nullable, parts))
        case Alt(parts):
            return any(map(is_nullable, parts))
        case Repeat(part, least, _):
            return least == 0 or is_nullable(part)


@lru_cache(_CACHED)
def after(node: Node, character: str) -> frozenset[Node]:
    """Returns what may follow the character, as regexes of which any one matches the rest."""
    match node:
        case Chars():
            return frozenset([EMPTY]) if node.has(character) else frozenset()
        case Alt(parts):
            return frozenset(chain.from_iterable(after(part, character) for part in parts))
        case Repeat(part, least, most):
            if most == 0:
                return frozenset()
            left = Repeat(part, max(least - 1, 0), None if most is None else most - 1)
            end = EMPTY if left.most == 0 else left
            return frozenset(cat(rest, end) for rest in after(part, character))
        case Cat(parts):
            found: set[Node] = set()
            for index, part in enumerate(parts):
                following = parts[index + 1 :]
                found |= {cat(rest, *following) for rest in after(part, character)}
                if not is_nullable(part):
                    break
            return frozenset(found)


def source(nodes: Iterable[Node]) -> str:
    """Returns a regex, in the syntax of Rust, that matches what any of the nodes matches."""
    return "|".join(sorted(map(_source, nodes)))


def _source(node: Node) -> str:
    match node:
        case Chars():
            return _class(node)
        case Cat(parts):
            return "".join(_group(part) if isinstance(part, Alt) else _source(part)
                           for part in parts)  # fmt: skip
        case Alt(parts):
            return "|".join(map(_source, parts))
        case Repeat(part, least, most):
            inner = _source(part) if isinstance(part, Chars) else _group(part)
            if (least, most) == (0, None):
                return f"{inner}*"
            return f"{inner}{{{least},{'' if most is None else most}}}"


def _group(node: Node) -> str:
    return f"(?:{_source(node)})"


def _class(chars: Chars) -> str:
    sign = "^" if chars.is_negated else ""
    inner = f"{sign}{''.join(map(_item, chars.items))}"
    if chars.minus:
        inner = f"[{inner}]--[{''.join(map(_item, chars.minus))}]"
    return f"[{inner}]"


def _item(item: Item) -> str:
    if isinstance(item, str):
        return f"\\{item}"
    first, last = item
    return f"\\x{{{first:x}}}" if first == last else f"\\x{{{first:x}}}-\\x{{{last:x}}}"


def _is_in(character: str, item: Item) -> bool:
    if not isinstance(item, str):
        return item[0] <= ord(character) <= item[1]
    match item.lower():
        case "d":
            is_in = unicodedata.category(character) == "Nd"
        case "s":
            is_in = character.isspace() and character not in "\x1c\x1d\x1e\x1f"
        case _:
            category = unicodedata.category(character)
            is_in = category[0] in "LM" or category in ("Nd", "Nl", "Pc") or character in _JOINERS
    return is_in != item.isupper()
