"""The regexes of the numbers in JSON, as llguidance has them."""

from dataclasses import dataclass
from decimal import Decimal

from dynemo.engines.guides.rest.regex import Alt, Cat, Chars, Node, Repeat, cat, literal

_DIGIT = Chars(((48, 57),))
_NATURAL = Alt((literal("0"), Cat((Chars(((49, 57),)), Repeat(_DIGIT, 0, None)))))
_SIGN = Repeat(literal("-"), 0, 1)
INTEGER = cat(_SIGN, _NATURAL)
NUMBER = cat(
    INTEGER,
    Repeat(cat(literal("."), Repeat(_DIGIT, 1, None)), 0, 1),
    Repeat(
        cat(
            Chars(((69, 69), (101, 101))),
            Repeat(Chars(((43, 43), (45, 45))), 0, 1),
            Repeat(_DIGIT, 1, None),
        ),
        0,
        1,
    ),
)


_ANY_DIGITS = Repeat(_DIGIT, 0, None)
_FRACTION = Repeat(cat(literal("."), Repeat(_DIGIT, 1, None)), 0, 1)
_ZEROS = Repeat(cat(literal("."), Repeat(literal("0"), 1, None)), 0, 1)


@dataclass(frozen=True)
class Bound:
    """A bound of a range, not below 0."""

    value: Decimal
    is_in: bool  #: in the range itself

    @property
    def whole(self) -> int:
        return int(self.value)

    @property
    def fraction(self) -> str:
        return f"{self.value:f}".partition(".")[2].rstrip("0")


def numbers(least: Bound | None, most: Bound | None) -> Node:
    """Returns the regex of the numbers in a range, which llguidance writes without an exponent.

    The values of the bounds may be negative here.
    """
    zero, beyond_zero = Bound(Decimal(0), True), Bound(Decimal(0), False)
    options: list[Node] = []
    if least is None or least.value < 0:
        end = None if least is None else Bound(-least.value, least.is_in)
        if most is not None and most.value < 0:
            start = Bound(-most.value, most.is_in)
        else:
            start = beyond_zero
        options.append(cat(literal("-"), _decimals(start, end)))
        least = zero
    if most is None or most.value > 0:
        options.append(_decimals(least, most))
    elif most.value == 0 and most.is_in:
        options.append(literal("0"))
    return _alt(options)


def _decimals(least: Bound, most: Bound | None) -> Node:
    """The numbers from `least` to `most`, neither of which is negative."""
    if most is not None and least.value == most.value:
        return literal(f"{least.value:f}")
    low = least.whole
    if most is None:
        above = cat(_naturals(low + 1, None), _FRACTION)
        return _alt([_from(low, least), above])
    high = most.whole
    if low == high:
        return _between(low, least, most)
    options = [_from(low, least)]
    if low + 1 < high:
        options.append(cat(_naturals(low + 1, high - 1), _FRACTION))
    if most.fraction:
        below = cat(literal("."), _digits_to(most.fraction, most.is_in))
        options.append(cat(literal(str(high)), Repeat(below, 0, 1)))
    elif most.is_in:
        options.append(cat(literal(str(high)), _ZEROS))
    return _alt(options)


def _from(whole: int, least: Bound) -> Node:
    if not least.fraction and least.is_in:
        return cat(literal(str(whole)), _FRACTION)
    return cat(literal(f"{whole}."), _digits_from(least.fraction, least.is_in))


def _between(whole: int, least: Bound, most: Bound) -> Node:
    length = max(len(least.fraction), len(most.fraction))
    first, last = least.fraction.ljust(length, "0"), most.fraction.ljust(length, "0")
    common = next(i for i in range(length) if first[i] != last[i])
    low, high = first[common], last[common]
    options = [cat(literal(low), _digits_from(first[common + 1 :].rstrip("0"), least.is_in))]
    if ord(low) + 1 < ord(high):
        middle = Chars(((ord(low) + 1, ord(high) - 1),))
        options.append(cat(middle, _ANY_DIGITS))
    rest = last[common + 1 :].rstrip("0")
    if rest or most.is_in:
        options.append(cat(literal(high), _digits_to(rest, most.is_in)))
    digits = cat(literal(f".{first[:common]}"), _alt(options))
    is_optional = not int(first)
    return cat(literal(str(whole)), Repeat(digits, 0, 1) if is_optional else digits)


def _digits_from(digits: str, is_in: bool) -> Node:
    """The digits of a fraction that is at least another one."""
    if not digits:
        return _ANY_DIGITS if is_in else cat(_ANY_DIGITS, Chars(((49, 57),)))
    options = [cat(literal(digits[0]), _digits_from(digits[1:], is_in))]
    if digits[0] != "9":
        options.append(cat(Chars(((ord(digits[0]) + 1, 57),)), _ANY_DIGITS))
    return _alt(options)


def _digits_to(digits: str, is_in: bool) -> Node:
    """The digits of a fraction that is at most another one."""
    if not digits:
        return literal("")
    lower = cat(Chars(((48, ord(digits[0]) - 1),)), _ANY_DIGITS)
    if len(digits) == 1 and not is_in:
        return lower
    same = cat(literal(digits[0]), _digits_to(digits[1:], is_in))
    return same if digits[0] == "0" else _alt([same, lower])


def _alt(options: list[Node]) -> Node:
    return options[0] if len(options) == 1 else Alt(tuple(options))


def integers(least: int | None, most: int | None) -> Node:
    """Returns the regex of the integers in a range. `-0` is one of them if `least` is negative and
    `most` is not, as in llguidance."""
    if least is None and most is None:
        return INTEGER
    options: list[Node] = []
    if least is None:
        options.append(_negative(1 if most is None or most >= 0 else -most, None))
    elif least < 0:
        is_zero_in = most is not None and most >= 0
        start = 0 if is_zero_in else 1 if most is None else -most
        options.append(_negative(start, -least))
    if most is None or most >= 0:
        options.append(_naturals(max(least or 0, 0), most))
    return _alt(options)


def _negative(least: int, most: int | None) -> Node:
    return cat(literal("-"), _naturals(least, most))


def _naturals(least: int, most: int | None) -> Node:
    """The numbers from `least` to `most`, without leading zeros."""
    options: list[Node] = []
    if most is None:
        longer = len(str(least))
        options.append(cat(Chars(((49, 57),)), Repeat(_DIGIT, longer, None)))
        most = 10**longer - 1
    for length in range(len(str(least)), len(str(most)) + 1):
        first = max(least, 10 ** (length - 1) if length > 1 else 0)
        last = min(most, 10**length - 1)
        options += _same_length(str(first), str(last))
    return _alt(options)


def _same_length(first: str, last: str) -> list[Node]:
    """The numbers between two numbers with as many digits."""
    if not first:
        return [literal("")]
    if len(first) == 1:
        return [_digits(first, last)]
    if first[0] == last[0]:
        return [cat(literal(first[0]), part) for part in _same_length(first[1:], last[1:])]
    rest = len(first) - 1
    low, high = int(first[0]), int(last[0])
    options: list[Node] = []
    if first[1:] != "0" * rest:
        upper = _same_length(first[1:], "9" * rest)
        options += [cat(literal(first[0]), part) for part in upper]
        low += 1
    if last[1:] != "9" * rest:
        lower = _same_length("0" * rest, last[1:])
        options += [cat(literal(last[0]), part) for part in lower]
        high -= 1
    if low <= high:
        options.append(cat(_digits(str(low), str(high)), Repeat(_DIGIT, rest, rest)))
    return options


def _digits(first: str, last: str) -> Node:
    return Chars(((ord(first), ord(last)),))
