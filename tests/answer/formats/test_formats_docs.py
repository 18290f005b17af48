"""The tables of `docs/formats.md` say what the data of the formats says."""

from pathlib import Path

from dynemo.answer.formats.known.row import ReasoningRow, ToolRow
from dynemo.answer.formats.known.table import REASONINGS, TOOLS

_DOCS = Path(__file__).parents[3] / "docs" / "formats.md"


def test_the_tables_hold_every_format() -> None:
    lines = [line for line in _DOCS.read_text(encoding="utf-8").splitlines() if line[:3] == "| `"]
    rows = [_tool(row) for row in TOOLS.values()] + [_reasoning(row) for row in REASONINGS.values()]
    assert lines == rows, "\n".join(rows)


def _tool(row: ToolRow) -> str:
    format = row.format
    return (
        f"| `{format.name}` | {row.families} | {format.syntax} | {_marks(row.marks)} "
        f"| {row.source} |"
    )


def _reasoning(row: ReasoningRow) -> str:
    return f"| `{row.format.name}` | {row.families} | {_marks(row.marks)} |"


def _marks(marks: tuple[str, ...]) -> str:
    return " ".join(_code(mark) for mark in marks) or "none"


def _code(mark: str) -> str:
    fence = "``" if "`" in mark else "`"
    pad = " " if "`" in mark else ""
    return f"{fence}{pad}{mark.replace('|', chr(92) + '|')}{pad}{fence}"
