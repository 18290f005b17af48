"""Formats rows of results as a table and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, geometric_mean, median
from typing import Any

_HEADINGS = ("what", "ours", "peer", "ratio or difference", "goal", "met")


@dataclass(frozen=True)
class Row:
    """One result. The goal limits `value`: a ratio, a difference, or ours alone."""

    what: str
    ours: float
    unit: str
    peer: float | None = None
    value: float | None = None  #: None: the value of ours, if there is a goal
    value_unit: str = ""  #: of `value`; `x` for a ratio
    low: float | None = None  #: quartiles of `value` over the rounds
    high: float | None = None
    goal: float | None = None
    is_floor: bool = False  #: whether the goal is a minimum of `value` instead of a maximum
    rounds: int = 1

    @property
    def is_met(self) -> bool | None:
        value = self.ours if self.value is None else self.value
        if self.goal is None:
            return None
        return value >= self.goal if self.is_floor else value < self.goal


def ratio(what: str, unit: str, ours: Sequence[float], peer: Sequence[float], **more: Any) -> Row:
    """Returns a row of ours / peer: the median over the rounds, which measure both."""
    each = [a / b for a, b in zip(ours, peer, strict=True)]
    return _paired(what, unit, ours, peer, each, "x", more)


def difference(
    what: str, unit: str, ours: Sequence[float], peer: Sequence[float], **more: Any
) -> Row:
    """Returns a row of ours - peer: the median over the rounds, which measure both."""
    each = [a - b for a, b in zip(ours, peer, strict=True)]
    return _paired(what, unit, ours, peer, each, unit, more)


def _paired(
    what: str,
    unit: str,
    ours: Sequence[float],
    peer: Sequence[float],
    each: Sequence[float],
    value_unit: str,
    more: dict[str, Any],
) -> Row:
    ordered = sorted(each)
    quarter = len(ordered) // 4
    return Row(
        what,
        median(ours),
        unit,
        peer=median(peer),
        value=median(each),
        value_unit=value_unit,
        low=ordered[quarter],
        high=ordered[-1 - quarter],
        rounds=len(each),
        **more,
    )


def both_orders(first: Row, second: Row) -> Row:
    """Merges two rows of one measurement, with ours loaded first and second.

    The result is their mean, with the widest quartiles.
    """
    both = (first, second)

    def values(name: str) -> list[float]:
        return [getattr(row, name) for row in both]

    middle = geometric_mean if first.value_unit == "x" else fmean
    return replace(
        first,
        ours=fmean(values("ours")),
        peer=fmean(values("peer")),
        value=middle(values("value")),
        low=min(values("low")),
        high=max(values("high")),
        rounds=first.rounds + second.rounds,
    )


def render(rows: Sequence[Row]) -> str:
    """Formats the table as plain text."""
    lines = [_HEADINGS, *map(_cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADINGS))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(text)


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{**asdict(row), "is_met": row.is_met} for row in rows]


def _cells(row: Row) -> tuple[str, ...]:
    met = {None: "", True: "yes", False: "NO"}[row.is_met]
    peer = "" if row.peer is None else f"{_number(row.peer)} {row.unit}"
    return (row.what, f"{_number(row.ours)} {row.unit}", peer, _value(row), _goal(row), met)


def _value(row: Row) -> str:
    if row.value is None or row.low is None or row.high is None:
        return ""
    if row.value_unit == "x":
        return f"{row.value:.3f} ({row.low:.3f} to {row.high:.3f})"
    low, high = _number(row.low, sign="+"), _number(row.high, sign="+")
    return f"{_number(row.value, sign='+')} {row.value_unit} ({low} to {high})"


def _goal(row: Row) -> str:
    if row.goal is None:
        return "none"
    unit = "" if row.value_unit == "x" else f" {row.value_unit or row.unit}"
    return f"{'at least' if row.is_floor else 'under'} {row.goal:g}{unit}"


def _number(value: float, *, sign: str = "") -> str:
    digits = max(0, 3 - len(str(int(abs(value))))) if abs(value) >= 1 else 3
    return f"{value:{sign},.{digits}f}"
