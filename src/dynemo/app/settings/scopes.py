"""A scope: the runs and commands in which a setting has an effect."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from dynemo.app.settings.modes import INPUTS, OUTPUTS, POOL, Mode
from dynemo.environments.registry import ENGINES
from dynemo.spelling import either


@dataclass(frozen=True)
class Need:
    """Another setting that must have a certain value."""

    words: str  #: `--discovery etcd`
    is_met: Callable[[Any], bool]  #: by a Config


@dataclass(frozen=True)
class Scope:
    """Some inputs with some outputs, or commands. Raises ValueError if nothing is in scope."""

    words: str  #: what a flag of this scope needs: `in=http`
    inputs: frozenset[str] = frozenset()
    outputs: frozenset[str] = frozenset()
    commands: frozenset[str] = frozenset()
    needs: tuple[Need, ...] = ()
    advice: str = ""  #: a sentence for a flag that is out of scope

    def __post_init__(self) -> None:
        if not ((self.inputs and self.outputs) or self.commands):
            raise ValueError(f"{self.words}: no run is in this scope")
        if self.inputs - INPUTS or self.outputs - OUTPUTS:
            raise ValueError(f"{self.words}: there are no such inputs or outputs")

    def has(self, mode: Mode) -> bool:
        """Whether it holds this mode, as far as that depends on nothing else."""
        if mode.command:
            return mode.command in self.commands
        return mode.input.kind in self.inputs and mode.output.kind in self.outputs

    def missing(self, config: Any) -> str:
        """The needs that this Config does not meet, as text; empty if it meets all."""
        return " and ".join(need.words for need in self.needs if not need.is_met(config))

    def with_need(self, *needs: Need) -> "Scope":
        return replace(self, needs=needs)


_ENGINES = OUTPUTS - {POOL}
_ASKING = INPUTS - {"dyn", "none"}


def _engines_that(words: str, names: frozenset[str]) -> Scope:
    listed = either(f"out={name}" for name in ENGINES if name in names)
    return Scope(f"{words}: {listed}", INPUTS, names)


EVERY_RUN = Scope("a run", INPUTS, OUTPUTS)
ENGINE = Scope(
    "an engine in out=", INPUTS, _ENGINES,
    advice="Give it to the workers of the pool.",
)  # fmt: skip
#: Of an engine over several machines, only rank 0 serves a model under a name.
LEADER = Scope(
    "an engine in out=, and another in= than none", INPUTS - {"none"}, _ENGINES,
    advice="Give it to rank 0 of the engine, or to the workers of the pool.",
)  # fmt: skip
TENSOR_PARALLEL = _engines_that(
    "an engine that splits a model over devices",
    frozenset(name for name, entry in ENGINES.items() if entry.has_tensor_parallel),
)
SEVERAL_NODES = _engines_that(
    "an engine that splits a model over machines",
    frozenset(name for name, entry in ENGINES.items() if entry.has_nodes),
)
WITHOUT_LAUNCHER = _engines_that(
    "an engine whose machines meet at an address",
    frozenset(n for n, entry in ENGINES.items() if entry.has_nodes and not entry.has_launcher),
)
#: Inputs that make requests.
REQUESTS = Scope(
    "in=http, in=text, in=stdin or in=batch:FILE", _ASKING, OUTPUTS,
)  # fmt: skip
PROMPTS = Scope("in=text, in=stdin or in=batch:FILE", _ASKING - {"http"}, OUTPUTS)
SERVER = Scope("in=http", frozenset({"http"}), OUTPUTS)
BATCH = Scope("in=batch:FILE", frozenset({"batch"}), OUTPUTS)
WORKER = Scope("a worker (in=dyn://NAME)", frozenset({"dyn"}), _ENGINES)
INGRESS = Scope("an ingress (out=dyn://NAME)", _ASKING, frozenset({POOL}))
RENDER = Scope("`dynemo-run render`", commands=frozenset({"render"}))
PS = Scope("`dynemo-run ps`", commands=frozenset({"ps"}))
