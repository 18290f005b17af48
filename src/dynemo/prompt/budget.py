"""The budget of one rendering in this process, and the price of each operation of a template.

A price is in steps of about a microsecond. It is counted and not measured, so the same conversation
always has the same price. `bounded.py` is the environment that pays.
"""

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from types import FunctionType
from typing import Any, NoReturn

from jinja2.ext import Extension
from jinja2.runtime import BlockReference, LoopContext, Macro, Undefined
from jinja2.utils import Cycler, Joiner, Namespace

from dynemo.prompt.errors import RenderTooLong

#: Steps that a text costs: one for each 1,024 characters.
_TEXT = 10
#: Steps that a list costs where nothing looks into its items: one for each 16.
_ITEMS = 4
#: Steps of a text whose characters are looked at one by one: one for each 8.
_CHARACTERS = 3
#: The longest text that `*` makes, the longest number, and the widest column or indentation.
_TEXT_MADE = 1 << 16
_BITS_MADE = 4096
_WIDTH = 64
_LONG_NUMBER = re.compile(r"\d{3}")

_ATOMS = (str, int, float, bool, type(None))


class Budget:
    """The steps that one rendering may still take."""

    __slots__ = ("_left",)

    def __init__(self, steps: int) -> None:
        self._left = steps

    def step(self, steps: int = 1) -> bool:
        """Takes some steps. Always true, so that an expression can hold it."""
        self._left -= steps
        if self._left < 0:
            too_long()
        return True

    def take(self, value: Any) -> Any:
        """Pays for a value that was made, by its own size. Returns it."""
        if type(value) is str:
            self._left -= 1 + (len(value) >> _TEXT)
        else:
            self._left -= 1
            if isinstance(value, str | bytes):
                self._left -= len(value) >> _TEXT
            elif isinstance(value, list | tuple | dict | set | frozenset | range):
                self._left -= len(value) >> _ITEMS
            elif isinstance(value, int) and value.bit_length() > _BITS_MADE:
                too_long()
        if self._left < 0:
            too_long()
        return value

    def walk(self, value: Any) -> Any:
        """Pays for all that a value holds, because its user looks at all of it. Returns it."""
        if type(value) is str:
            self._left -= 1 + (len(value) >> _TEXT)
        else:
            self._left -= 1
            if not isinstance(value, _ATOMS):
                self._walk(value)
        if self._left < 0:
            too_long()
        return value

    def contains(self, value: Any, container: Any) -> bool:
        """Returns `value in container`, and pays for it."""
        if isinstance(value, _ATOMS):
            self.take(container)
        else:
            self.walk(value)
            self.walk(container)
        return value in container

    def _walk(self, value: Any) -> None:
        rest = [value]
        while rest:
            item = rest.pop()
            self.step()
            if isinstance(item, str | bytes):
                self.step(len(item) >> _TEXT)
            elif isinstance(item, Mapping):
                self.step(len(item))
                rest += item.keys()
                rest += item.values()
            elif isinstance(item, list | tuple | set | frozenset):
                self.step(len(item))
                rest += item
            elif isinstance(item, range):
                self.step(len(item))
            elif isinstance(item, Namespace | Cycler):
                rest += vars(item).values()


def too_long() -> NoReturn:
    raise RenderTooLong(
        "The model's chat template cannot render these messages: it needs too many steps.",
        param="messages",
    )


#: Judges one call before it runs, by its value and arguments: pays for it, or raises RenderTooLong.
Price = Callable[[Budget, Any, Sequence[Any]], None]


def refuse(_budget: Budget, _value: Any, _args: Sequence[Any]) -> None:
    too_long()


def free(_budget: Budget, _value: Any, _args: Sequence[Any]) -> None:
    """The price of an operation that takes the same time for any value."""


def _linear(budget: Budget, value: Any, _args: Sequence[Any]) -> None:
    budget.take(value)


def walk_all(budget: Budget, value: Any, args: Sequence[Any]) -> None:
    budget.walk(value)
    for arg in args:
        budget.walk(arg)


def _each(budget: Budget, value: Any, args: Sequence[Any]) -> None:
    """The price of an operation that looks at each item or character."""
    walk_all(budget, value, args)
    if isinstance(value, str):
        budget.step(len(value) >> _CHARACTERS)


def _narrow(budget: Budget, value: Any, args: Sequence[Any]) -> None:
    """The price of an operation that repeats an argument: a separator, an indentation."""
    _check_widths(args)
    budget.walk(value)
    if isinstance(value, str):
        budget.step(len(value) >> _CHARACTERS)
        budget.step(value.count("\n") * _WIDTH >> _TEXT)


def _join_method(budget: Budget, value: Any, args: Sequence[Any]) -> None:
    _check_widths([value])
    for items in args:
        _each(budget, items, ())


def _check_widths(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, int):
            width = abs(value)
        elif isinstance(value, str | list | tuple):
            width = len(value)
        else:
            width = 0 if value is None else _WIDTH + 1
        if width > _WIDTH:
            too_long()


def _replace(budget: Budget, value: Any, args: Sequence[Any]) -> None:
    texts = [arg for arg in args if isinstance(arg, str)]
    if not isinstance(value, str) or len(texts) != 2:
        too_long()
    budget.take(value)
    budget.step(max(map(value.count, texts)) * max(map(len, texts)) >> _TEXT)


def percent(budget: Budget, value: Any, args: Sequence[Any]) -> None:
    """`'%s' % args`, as an operator or as the filter `format`."""
    _check_pattern(budget, value, "%", "*", args)


def _check_pattern(
    budget: Budget, pattern: Any, mark: str, width: str, args: Sequence[Any]
) -> None:
    count = pattern.count(mark) if isinstance(pattern, str) else _WIDTH + 1
    if count > _WIDTH or width in pattern or _LONG_NUMBER.search(pattern):
        too_long()
    for _ in range(count):  # each mark may print all arguments
        walk_all(budget, pattern, args)


def product(left: Any, right: Any) -> None:
    """`left * right`"""
    for value, times in ((left, right), (right, left)):
        is_repeated = isinstance(value, str | bytes | list | tuple) and isinstance(times, int)
        if is_repeated and len(value) * times > _TEXT_MADE:
            too_long()


def power(left: Any, right: Any) -> None:
    """`left ** right`"""
    are_whole = isinstance(left, int) and isinstance(right, int)
    if are_whole and left.bit_length() * abs(right) > _BITS_MADE:
        too_long()


def _search(budget: Budget, value: Any, args: Sequence[Any]) -> None:
    """`count`, `index`: a list compares what it searches with its items."""
    if isinstance(value, str) or all(isinstance(arg, _ATOMS) for arg in args):
        budget.take(value)
    else:
        walk_all(budget, value, args)


def _named(price: Price, names: str) -> dict[str, Price]:
    return dict.fromkeys(names.split(), price)


FILTERS: dict[str, Price] = {
    **_named(free, "abs attr count d default first last length random"),
    **_named(_linear, "float int items map reject rejectattr reverse select selectattr"),
    **_named(walk_all, "dictsort e escape forceescape safe string trim"),
    **_named(_each, "capitalize list lower max min sort title unique upper wordcount"),
    "format": percent,
    "indent": _narrow,
    "join": _narrow,
    "replace": _replace,
    "round": _narrow,
    "tojson": _narrow,
}

#: Tests that look at all of their operands. The others look at a type or a name.
COMPARING_TESTS = (
    "in", "==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", ">=", "ge", "<", "lt",
    "lessthan", "<=", "le", "lower", "upper",
)  # fmt: skip

#: Methods of text, lists and mappings.
_METHODS: dict[str, Price] = {
    **_named(free, "get items keys values"),
    **_named(_linear, "copy endswith find isascii lstrip partition removeprefix removesuffix"),
    **_named(_linear, "rfind rindex rpartition rsplit rstrip split splitlines startswith strip"),
    **_named(_each, "capitalize casefold isalnum isalpha isdecimal isdigit isidentifier islower"),
    **_named(_each, "isnumeric isprintable isspace istitle isupper lower swapcase title upper"),
    **_named(_search, "count index"),
    "join": _join_method,
    "replace": _replace,
}

#: What Jinja's and our own objects do is paid by what they are given.
_KNOWN = (LoopContext, BlockReference, Cycler, Joiner, Extension, Undefined)


def price_method(budget: Budget, method: Any, args: tuple[Any, ...]) -> None:
    """Judges the call of a method that Python itself has."""
    _METHODS.get(method.__name__, refuse)(budget, method.__self__, args)


def price_call(budget: Budget, function: Any, args: tuple[Any, ...], own: Set[Any]) -> None:
    """Judges any other call. `own`: functions that only look at what they are given."""
    if isinstance(function, Macro):
        return
    if _owner(function) in own:
        walk_all(budget, None, args)
    elif isinstance(function, FunctionType) and hasattr(function, "__wrapped__"):
        pattern = function.__wrapped__.__self__  # `str.format`, in the form of Jinja's sandbox
        _check_pattern(budget, pattern, "{", ":", args)
    elif isinstance(_owner(function), _KNOWN):
        walk_all(budget, None, args)
    elif callable(function):
        too_long()


def _owner(function: Any) -> Any:
    owner = getattr(function, "__self__", function)
    return owner if isinstance(owner, Hashable) else None
