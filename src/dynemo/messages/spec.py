"""The data that an engine host gets at its start. It never leaves the machine."""

from typing import Any
from uuid import uuid4

from msgspec import Struct, field


class Parallel(Struct, frozen=True, kw_only=True):
    """How one engine is spread over devices and machines."""

    tensor: int = 1  #: devices that each layer is split over, on all nodes together
    nodes: int = 1
    rank: int = 0  #: of this node; 0 leads and takes the requests, the others follow
    leader: str = ""  #: HOST:PORT where the nodes meet; empty if a launcher joins them


class EngineSpec(Struct, frozen=True, kw_only=True):
    """Everything that an engine host needs to load its engine."""

    engine: str
    instance: str = field(default_factory=lambda: uuid4().hex)  #: its id, kept across restarts
    argument: str = ""  #: `text` of echo:text; the path of out=FILE.py
    model: str  #: a GGUF's or a checkout's path; empty if the engine needs none
    workdir: str  #: a private folder for sockets and the like; removed with the host
    context_length: int | None = None  #: None: the engine's choice, at most the model's
    model_bytes: int = 0  #: of its files; 0 if unknown
    model_context: int = 0  #: what the model was made for; 0 if its files do not say
    kv_bytes_per_token: int = 0  #: of a 16-bit cache; 0 if its files do not say
    slots: int | None = None  #: sequences at once that the input can use; None: many
    embeds: bool = False  #: its files say that it was made for embeddings
    vocabulary: int = 0  #: rows of its embedding: ids below it are safe; 0 if unknown
    tokenizer_source: str = ""  #: the checkout of --model-config: tokenizer and template; or empty
    has_keys: bool = False  #: clients have API keys; no prefix cache may span several
    parallel: Parallel = Parallel()
    options: list[str] = []  #: the words after `--`
    extra: dict[str, Any] = {}  #: of --extra-engine-args, in the engine's own names
    verbosity: int = 0  #: how often -v was given
    descriptors: int = 0  #: the user's soft limit of open files; 0: leaves it as it is
