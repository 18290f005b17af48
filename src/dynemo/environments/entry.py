"""The facts about an engine before it is loaded. `--help` reads them, so no import is heavy."""

from dataclasses import dataclass
from typing import Literal

#: What an engine may compute on.
DEVICES = ("cpu", "cuda", "rocm", "metal", "vulkan")


@dataclass(frozen=True)
class EngineEntry:
    name: str
    summary: str = ""  #: a line of the help
    package: str = ""  #: the module that its installation has; empty: there is nothing to install
    distributions: tuple[str, ...] = ()  #: the names of its builds on a package index
    aliases: tuple[str, ...] = ()  #: other names that `out=` takes
    arguments: tuple[str, ...] = ()  #: what may follow the name: `text` of `out=echo:text`
    #: Environment variables of ours that its process reads.
    variables: tuple[str, ...] = ()
    reads: frozenset[str] = frozenset()  #: kinds of model (`models.find.Found.format`)
    #: The form of the demo model that it gets, if it reads both.
    demo: Literal["gguf", "checkout"] = "gguf"
    #: These six are what its `Capabilities` say once it has loaded.
    takes: Literal["tokens", "text", "messages"] = "tokens"
    gives: Literal["tokens", "text"] = "tokens"
    guides: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ("chat",)
    logprobs: bool = False  #: of the tokens that it chooses
    #: How it keeps the prompts of API keys apart that its prefix cache holds: by a salt, by having
    #: no such cache when there are keys, or by having none at all.
    prefix_cache: Literal["per key", "off with keys", "none"] = "none"
    has_tensor_parallel: bool = False
    has_nodes: bool = False  #: several machines can run one model
    has_launcher: bool = False  #: its own launcher joins the machines; others meet at an address
    has_torch: bool = False  #: the build of torch beside it tells the device
    #: Options with which one prompt has one answer on every machine.
    exact_options: tuple[str, ...] = ()

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"dynemo-run engine install {self.name}"


GGUF = frozenset({"gguf"})
CHECKOUT = frozenset({"checkout"})
