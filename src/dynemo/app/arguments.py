"""The command line of a run: words and flags in, an `Invocation` out.

Imports no engine, no event loop and no tokenizer.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dynemo.app.settings.config import Setting, collect
from dynemo.app.settings.modes import Mode
from dynemo.app.settings.options import OPTIONS, Config
from dynemo.command_line.flags import HELP, Flag
from dynemo.command_line.read import read_flags, twice
from dynemo.commands.table import COMMANDS
from dynemo.errors import UsageError
from dynemo.spelling import nearest

VERSION = Flag(name="--version", help="Show the version.")
FLAGS = (*OPTIONS, VERSION, HELP)
_SEE_HELP = "`dynemo-run --help all` lists the flags; an engine's own options go after `--`."
#: The name before the `=` of a word, and the field that it sets.
_SIDES = {"in": "input", "out": "out"}


@dataclass(frozen=True)
class Invocation:
    """A run as it was asked for."""

    config: Config
    mode: Mode
    unused: list[str]  #: variables and keys of the file that do not apply to this run


def parse(argv: Sequence[str]) -> Invocation:
    """Raises UsageError."""
    own, engine_options = split_at_dashes(argv)
    settings = collect(_read(own))
    mode = settings.mode()
    if engine_options and mode.output.is_pool:
        raise UsageError(
            f"Options after `--` are for an engine; this run has {mode}. "
            "Give them to the workers of the pool."
        )
    config, unused = settings.for_mode(mode)
    return Invocation(replace(config, engine_options=tuple(engine_options)), mode, unused)


def split_at_dashes(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before `--`, which are ours, and those after it, which are the engine's."""
    words = list(argv)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def _read(own: Sequence[str]) -> dict[str, Setting]:
    values, words = read_flags(own, FLAGS, otherwise=_SEE_HELP)
    flags = {option.field: option for option in OPTIONS}
    given = {
        name: Setting(value, flags[name].name, str(value), is_flag=True)
        for name, value in values.items()
    }
    for word in words:
        side, equals, value = word.partition("=")
        is_side = bool(equals) and side in _SIDES
        if not is_side:
            _check_model(word, side if equals else "")
        name, text = (_SIDES[side], value) if is_side else ("model", word)
        source = f"{side}=" if is_side else "MODEL"
        if name in given:
            raise UsageError(twice(source, given[name].text, text))
        given[name] = Setting(text, source, text, is_flag=True)
    return given


def _check_model(word: str, side: str) -> None:
    """Raises UsageError for a word that was meant to be another one than MODEL."""
    if os.path.exists(os.path.expanduser(word)):
        return
    if side and side.isalpha():
        near = nearest(side, _SIDES) or next((s for s in _SIDES if side.startswith(s)), None)
        hint = f'did you mean "{near}="?' if near else "a run has in=, out= and MODEL."
        raise UsageError(f'Unknown word "{side}="; {hint}')
    command = nearest(word, [each.word for each in COMMANDS]) if word.isalpha() else None
    if command:
        raise UsageError(f'Unknown command "{word}"; did you mean "{command}"?')
