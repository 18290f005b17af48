"""The regexes of the numbers in JSON."""

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
    return options[0] if len(options) == 1 else Alt(tuple(options))


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
    return options[0] if len(options) == 1 else Alt(tuple(options))


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
