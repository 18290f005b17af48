"""The text of `--help`, made from the rows of flags and commands."""

import os
import sys
import textwrap
from collections.abc import Iterable

from dynemo.command_line.flags import Flag, Subcommand

_WIDEST = 100
_NARROWEST = 60
#: Where the second column begins: behind words, and behind flags.
_WORD_COLUMN = 14
_FLAG_COLUMN = 26


def width() -> int:
    """The width of the text: that of the terminal, but neither too narrow nor too wide to read."""
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        columns = _WIDEST
    return max(_NARROWEST, min(_WIDEST, columns))


def command_help(command: Subcommand) -> str:
    """All that `dynemo-run COMMAND --help` prints."""
    words = [f"[{word.name}]" if word.is_optional else word.name for word in command.words]
    required = [f"{flag.name} {flag.metavar}" for flag in command.flags if flag.is_required]
    words += ["COMMAND"] if command.commands else []
    rest = ["[flags]"] if command.flags or command.commands else []
    parts = [f"usage: {' '.join([command.name, *words, *required, *rest])}", command.summary]
    parts += [command.details] if command.details else []
    if command.commands:
        listed = [(each.word, each.summary) for each in command.commands]
        parts.append(section("commands (each has --help)", listed))
    described = [(word.name, word.help) for word in command.words if word.help]
    if described:
        parts.append(section("words", described))
    parts.append(flag_section("flags", command.every_flag))
    return "\n\n".join(parts)


def flag_section(heading: str, flags: Iterable[Flag]) -> str:
    rows = []
    for flag in flags:
        names = ", ".join(flag.spellings)
        rows.append((f"{names} {flag.metavar}".strip(), flag.help))
    return section(heading, rows, column=_FLAG_COLUMN)


def section(heading: str, rows: Iterable[tuple[str, str]], *, column: int = _WORD_COLUMN) -> str:
    """A heading, and rows of two columns. A first text that reaches `column` has its own line."""
    lines = [f"{heading}:"]
    for first, second in rows:
        head = f"  {first}"
        if len(head) > column - 2:
            lines.append(head)
            head = ""
        wrapped = textwrap.wrap(second, width() - column) or [""]
        lines.append(head.ljust(column) + wrapped[0])
        lines += [" " * column + line for line in wrapped[1:]]
    return "\n".join(line.rstrip() for line in lines)
