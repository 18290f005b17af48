"""The two sides of a run: `in=`, where requests come from, and `out=`, what answers them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from dynemo.environments.registry import ALIASES, ENGINES, OWN
from dynemo.errors import UsageError
from dynemo.planes.names import parse_name
from dynemo.spelling import unknown

#: How each form of `in=` and `out=` is written.
INPUT_FORMS = ("text", "stdin", "http", "batch:FILE", "dyn://NAME", "none")
OUTPUT_FORMS = (
    *ENGINES,
    *(f"{name}:{argument}" for name, entry in ENGINES.items() for argument in entry.arguments),
    "FILE.py",
    "dyn://NAME",
)
#: The kinds of both, by which a setting says where it applies.
INPUTS = frozenset({"text", "stdin", "http", "batch", "dyn", "none"})
POOL = "pool"
DEFAULT = "default"
OUTPUTS = frozenset({*ENGINES, OWN.name, DEFAULT, POOL})


@dataclass(frozen=True)
class RunInput:
    """`in=`: its kind, and the value behind the colon."""

    kind: str
    value: str = ""


@dataclass(frozen=True)
class RunOutput:
    """`out=`: an engine's name, DEFAULT or POOL; and its file, its form, or the pool's name."""

    kind: str = DEFAULT
    value: str = ""

    @property
    def is_pool(self) -> bool:
        return self.kind == POOL


@dataclass(frozen=True)
class Mode:
    """The two sides of a run, or a command that has settings."""

    input: RunInput = RunInput("")
    output: RunOutput = RunOutput()
    command: str = ""

    def __str__(self) -> str:
        if self.command:
            return f"`dynemo-run {self.command}`"
        source, out = self.input, self.output
        asked = {"batch": f"batch:{source.value}", "dyn": source.value}.get(
            source.kind, source.kind
        )
        answers = {POOL: out.value, OWN.name: out.value, DEFAULT: ""}.get(out.kind, out.kind)
        return f"in={asked} out={answers}" if answers else f"in={asked}"


def parse_mode(source: str, target: str) -> Mode:
    """The values of `in=` and `out=`; empty ones have a default. Raises UsageError, also for two
    sides that do not go together."""
    mode = Mode(_parse_input(source), _parse_output(target))
    if mode.output.is_pool and mode.input.kind == "dyn":
        raise UsageError(
            f"A run with {mode} only passes requests on; "
            "give a worker an engine in out=, or an ingress another in=."
        )
    if mode.output.is_pool and mode.input.kind == "none":
        raise UsageError(
            f"in=none is a rank above 0 of an engine on several machines, and out={target} is a "
            "pool; give an ingress in=http, in=text or in=batch:FILE."
        )
    return mode


def _parse_input(word: str) -> RunInput:
    """The default depends on whether a person is at the keyboard."""
    if not word:
        return RunInput("text" if sys.stdin.isatty() and sys.stdout.isatty() else "stdin")
    kind, colon, value = word.partition(":")
    if word in ("text", "stdin", "http", "none"):
        return RunInput(word)
    if kind == "batch" and value:
        return RunInput(kind, value)
    if word in ("batch", "batch:"):
        raise UsageError("in=batch needs a file of JSON lines: in=batch:prompts.jsonl.")
    if kind == "dyn" and colon:
        parse_name(word)
        return RunInput("dyn", word)
    raise UsageError(_unknown_side("input", "in", word, INPUT_FORMS))


def _parse_output(word: str) -> RunOutput:
    kind, _, value = ALIASES.get(word, word).partition(":")
    if not word:
        return RunOutput()
    if word.endswith(".py"):
        return RunOutput(OWN.name, word)
    if kind == "dyn":
        parse_name(word)
        return RunOutput(POOL, word)
    if kind in ENGINES and value in ("", *ENGINES[kind].arguments):
        return RunOutput(kind, value)
    raise UsageError(_unknown_side("output", "out", word, OUTPUT_FORMS))


def _unknown_side(noun: str, side: str, word: str, forms: Sequence[str]) -> str:
    return unknown(noun, word, forms, prefix=f"{side}=")
