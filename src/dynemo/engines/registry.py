"""The engines by name. Light: `--help` reads it, and adapters are imported in the host alone."""

from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class Entry:
    name: str
    package: str = ""  #: what `import` finds where it is installed; empty: nothing is needed
    install: str = ""  #: the command that installs it
    reads: frozenset[str] = frozenset()  #: kinds of model (`models.find.Found.kind`)
    is_here: bool = True  #: False: known, and comes with a later release


_GGUF = frozenset({"gguf"})
_CHECKOUT = frozenset({"checkout"})

ENGINES = {
    entry.name: entry
    for entry in (
        Entry("llama_cpp", "xllamacpp", "pip install xllamacpp", _GGUF),
        Entry("mistralrs", "mistralrs", "pip install mistralrs", _GGUF | _CHECKOUT, is_here=False),
        Entry("vllm", "vllm", "pip install vllm", _GGUF | _CHECKOUT, is_here=False),
        Entry("sglang", "sglang", "pip install sglang", _CHECKOUT, is_here=False),
        Entry("trtllm", "tensorrt_llm", "", _CHECKOUT | {"engine"}, is_here=False),
        Entry("echo", reads=_GGUF | _CHECKOUT),
    )
}
ALIASES = {"llamacpp": "llama_cpp", "llama.cpp": "llama_cpp"}


def is_installed(entry: Entry) -> bool:
    """Whether this interpreter could import it. Does not import it."""
    return not entry.package or find_spec(entry.package) is not None


def default_engine(kind: str) -> Entry | None:
    """The first engine that reads this kind of model, is here and is installed."""
    for entry in ENGINES.values():
        if kind in entry.reads and entry.is_here and entry.package and is_installed(entry):
            return entry
    return None
