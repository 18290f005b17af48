"""`dynemo-run engine install|remove|list|doctor`: engines and the environments that they are in."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dynemo.commands.parser import Parser
from dynemo.environments.machine import DEVICES
from dynemo.environments.registry import ALIASES, ENGINES

_DESCRIPTION = """\
Engines that cannot live beside others have a Python environment of their own, in your data folder:

  install NAME   makes it, with pinned versions, for this machine's device or for --device
  remove NAME    removes it
  list           every engine: whether it is installed, where, and what it can do
  doctor [NAME]  loads the demo model in each engine that is installed, and says what is wrong
"""
ACTS = ("install", "remove", "list", "doctor")


def run_engine(words: Sequence[str]) -> int:
    """Returns the exit code. Raises DynemoError."""
    given = engine_parser().parse_args(words)
    if given.act == "install":
        from dynemo.commands.engine.install import install
        from dynemo.environments.variants import find_variant

        python = str(given.python.expanduser()) if given.python else sys.executable
        return install(find_variant(given.name, given.device), python)
    if given.act == "remove":
        from dynemo.commands.engine.install import remove

        return remove(given.name)
    if given.act == "list":
        from dynemo.commands.engine.list import list_engines

        return list_engines(as_json=given.json)
    from dynemo.commands.engine.doctor import doctor

    return doctor(given.name)


def engine_parser() -> Parser:
    parser = Parser(
        prog="dynemo-run engine",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    acts = parser.add_subparsers(dest="act", required=True, metavar="|".join(ACTS))
    named = {name: acts.add_parser(name, allow_abbrev=False) for name in ACTS}
    for name in ("install", "remove"):
        named[name].add_argument("name", metavar="NAME", type=_engine)
    install = named["install"]
    install.add_argument("--device", choices=DEVICES, help="what it computes on (this machine's)")
    install.add_argument(
        "--python", metavar="PATH", type=Path, help="the Python to make it with (this one)"
    )
    named["list"].add_argument("--json", action="store_true", help="one JSON document")
    named["doctor"].add_argument("name", metavar="NAME", type=_engine, nargs="?")
    for name in ("install", "remove", "doctor"):
        named[name].offers = tuple(each for each, entry in ENGINES.items() if entry.package)
    return parser


def _engine(text: str) -> str:
    name = ALIASES.get(text, text)
    if name not in ENGINES:
        raise argparse.ArgumentTypeError(f"there is no engine {text}, but {', '.join(ENGINES)}")
    return name
