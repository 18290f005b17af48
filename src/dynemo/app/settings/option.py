"""One row of the table of settings, and the topics under which the help shows the rows."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from dynemo.app.settings.scopes import Scope
from dynemo.command_line.flags import Flag

T = TypeVar("T")

#: The topics of the help, in order.
MODEL = "Model"
ENGINE_TOPIC = "Engine"
DEVICES = "Several devices or machines"
REQUESTS_TOPIC = "Requests"
SERVERS = "Servers (in=http, in=dyn://NAME)"
BATCH_TOPIC = "Batch (in=batch:FILE)"
POOL_TOPIC = "Pool of workers (in=dyn://NAME, out=dyn://NAME)"
GENERAL = "General"


@dataclass(frozen=True, kw_only=True)
class Option(Flag):
    """One row of the table, without its default, which is the field's."""

    name: str = ""  #: the flag; empty: made from the field
    field: str = ""
    topic: str
    where: tuple[Scope, ...]  #: any of them
    shown: str = ""  #: what the help says of the default; empty: the default itself
    is_rare: bool = False  #: only `--help all` shows it
    variables: tuple[str, ...] = ()  #: others that are read, where they are known by these names

    def __post_init__(self) -> None:
        if not self.where:
            raise ValueError("a setting applies somewhere")

    @property
    def key(self) -> str:
        return self.field

    @property
    def keys(self) -> tuple[str, ...]:
        """Its names in a file, and behind `DYNEMO_` in a variable."""
        spelled = (name[2:].replace("-", "_") for name in self.spellings if name.startswith("--"))
        return tuple(dict.fromkeys((self.field, *spelled)))


def setting(default: T, parse: Callable[[str], T], option: Option) -> T:
    """A field of `Config` from its row."""
    made = replace(option, parse=parse)
    return field(default=default, metadata={"option": made})
