"""The rows of a command line: flags, words, and the commands that take them.

argparse is not used: it words its own mistakes, names no near flag, and its help and its private
attributes change from one Python to the next. These rows are plain data, so that the parser, the
help and the shell completion are made from the same ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dynemo.errors import UsageError
from dynemo.spelling import quoted, unknown


@dataclass(frozen=True, kw_only=True)
class Flag:
    """`--name VALUE`, or `--name` alone if `metavar` is empty."""

    name: str  #: with its dashes: `--http-port`
    help: str
    metavar: str = ""  #: stands for the value in the help
    parse: Callable[[str], Any] = str  #: raises ValueError(what it takes) for a bad value
    choices: tuple[str, ...] = ()  #: the only values; empty: any that `parse` takes
    aliases: tuple[str, ...] = ()  #: other spellings
    is_required: bool = False
    is_list: bool = False  #: may be given several times; `parse` gives a tuple

    @property
    def key(self) -> str:
        """The name of its value among those that were given."""
        return self.name.lstrip("-").replace("-", "_")

    @property
    def spellings(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)

    def read(self, text: str, source: str) -> Any:
        """The value of `text`. Raises UsageError that names `source`: a flag, a variable, a key."""
        if self.choices and text not in self.choices:
            raise UsageError(unknown("value", text, self.choices, place=f" for {source}"))
        try:
            return self.parse(text)
        except ValueError as takes:
            raise UsageError(f"{source} takes {takes}, not {quoted(text)}.") from None


HELP = Flag(name="--help", aliases=("-h",), help="Show this help.")


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word that is known by its place."""

    name: str  #: `MODEL`
    help: str = ""
    noun: str = ""  #: what a message calls it, if there are `choices`
    choices: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()  #: other spellings of choices
    suggestions: tuple[str, ...] = ()  #: what the shell offers, if that is less than `choices`
    is_file: bool = False  #: the shell offers files
    is_optional: bool = False

    @property
    def key(self) -> str:
        return self.name.partition(".")[0].lower()

    def read(self, text: str) -> str:
        """Raises UsageError for a word that is not among the choices."""
        text = dict(self.aliases).get(text, text)
        if self.choices and text not in self.choices:
            raise UsageError(unknown(self.noun, text, self.choices))
        return text


@dataclass(frozen=True, kw_only=True)
class Subcommand:
    """One command: either words and flags, or commands of its own."""

    name: str  #: the whole of it: `dynemo-run engine install`
    summary: str  #: one sentence, for the list of commands
    details: str = ""  #: what else its help says
    words: tuple[Word, ...] = ()
    flags: tuple[Flag, ...] = ()
    commands: tuple["Subcommand", ...] = ()

    @property
    def word(self) -> str:
        """The last word of its name."""
        return self.name.rpartition(" ")[2]

    @property
    def every_flag(self) -> tuple[Flag, ...]:
        return (*self.flags, HELP)
