"""Runs `dynemo-run` or `ps`, and then writes to FILE which settings it has read.

`python reads_program.py FILE ARGUMENT...`: the arguments are those of `dynemo-run`.
"""

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from dynemo.app.arguments import parse
from dynemo.app.cli import start
from dynemo.app.settings.config import collect
from dynemo.app.settings.modes import Mode
from dynemo.app.settings.options import Config
from dynemo.errors import DynemoError

_read: set[str] = set()


class _RecordingConfig(Config):
    def __getattribute__(self, name: str) -> Any:
        _read.add(name)
        return super().__getattribute__(name)


def _record(config: Config) -> Config:
    made = _RecordingConfig(**{field.name: getattr(config, field.name) for field in fields(Config)})
    _read.clear()
    return made


def _ps() -> None:
    from dynemo.commands.ps import ps

    config, _ = collect({}).for_mode(Mode(command="ps"))
    ps(_record(config), as_json=False, is_watching=False)


def main(file: str, *words: str) -> None:
    try:
        if words == ("ps",):
            _ps()
        else:
            invocation = parse(words)
            start(replace(invocation, config=_record(invocation.config)))
    except DynemoError as error:
        print(error, file=sys.stderr)
    finally:
        Path(file).write_text("\n".join(sorted(_read)))


if __name__ == "__main__":
    main(*sys.argv[1:])
