"""The engines by name: one line for each. Its folder beside this file has all the rest.

`ENTRY` of `environments.NAME` is light, for `--help` reads it. `environments.NAME.variants`, which
says what can be installed, is imported by `engine install` alone, and the adapter in `engines.NAME`
by the host process alone.
"""

from importlib import import_module

from dynemo.environments.entry import CHECKOUT, GGUF, EngineEntry

_NAMES = (
    "llama_cpp",
    "mistralrs",
    "vllm",
    "sglang",
    "trtllm",
    "echo",
)


def _entry(name: str) -> EngineEntry:
    entry: EngineEntry = import_module(f"dynemo.environments.{name}").ENTRY
    return entry


#: In the order in which they are tried if `out=` names none.
ENGINES = {name: _entry(name) for name in _NAMES}
ALIASES = {alias: name for name, entry in ENGINES.items() for alias in entry.aliases}
#: The engine of `out=FILE.py`.
OWN = EngineEntry("own", reads=GGUF | CHECKOUT)


def find_entry(name: str) -> EngineEntry:
    return OWN if name == OWN.name else ENGINES[name]
