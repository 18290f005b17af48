"""The engines by name. Light: `--help` reads it, and adapters are imported in the host alone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    name: str
    package: str = ""  #: what `import` finds where it is installed; empty: nothing is needed
    install: str = ""  #: the command that installs it
    reads: frozenset[str] = frozenset()  #: kinds of model (`models.find.Found.kind`)
    has_tensor_parallel: bool = False
    has_nodes: bool = False  #: several machines may run one model
    is_here: bool = True  #: False: known, and comes with a later release


_GGUF = frozenset({"gguf"})
_CHECKOUT = frozenset({"checkout"})
_INSTALL = "dynemo-run engine install "

ENGINES = {
    entry.name: entry
    for entry in (
        Entry("llama_cpp", "xllamacpp", "pip install xllamacpp", _GGUF),
        Entry("mistralrs", "mistralrs", "pip install mistralrs", _GGUF | _CHECKOUT, is_here=False),
        Entry("vllm", "vllm", _INSTALL + "vllm", _GGUF | _CHECKOUT, True, True, is_here=False),
        Entry("sglang", "sglang", _INSTALL + "sglang", _CHECKOUT, True, True, is_here=False),
        Entry(
            "trtllm", "tensorrt_llm", _INSTALL + "trtllm", _CHECKOUT | {"engine"}, True, True,
            is_here=False,
        ),
        Entry("echo", reads=_GGUF | _CHECKOUT),
    )
}  # fmt: skip
ALIASES = {"llamacpp": "llama_cpp", "llama.cpp": "llama_cpp"}
#: What `out=FILE.py` names.
OWN = Entry("own", reads=_GGUF | _CHECKOUT)
