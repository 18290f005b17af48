"""The records in discovery, and the description that an instance gives of itself.

These structs travel. Readers skip the fields that they do not know; a field that exists keeps its
name and its meaning. A reader cannot use an instance with an unknown `takes` or `gives`. So a new
value there needs a new version of the protocol (`wire/versions.py`).
"""

from typing import Literal

from msgspec import Struct


class Load(Struct, frozen=True, array_like=True):
    """The work of an engine now. Travels as an array: a new field goes to the end."""

    running: int = 0  #: sequences being computed
    waiting: int = 0  #: sequences in its queue
    kv_use: float = 0.0  #: share of the KV cache in use, 0 to 1


class LoadReport(Load, frozen=True, array_like=True):
    """The load of a worker, as it travels in PONG. Peers of protocol 1 send and read a `Load`.

    The fields of `Load` come from the engine, and are up to seconds older than the others.
    """

    streams: int | None = None  #: answers that the worker is giving, to all ingresses
    own: int = 0  #: of `streams`, those for the reader of this report
    failures: int = 0  #: answers in sequence that the engine failed


class Capabilities(Struct, frozen=True, kw_only=True):
    """The names of everything that an engine can honour. A request that needs more is refused
    before the engine gets it.

    Every list holds explicit names, so that a new field is refused until an adapter names it.
    """

    tasks: tuple[str, ...] = ("chat",)  #: `chat`, `embed`
    takes: Literal["tokens", "text", "messages"] = "tokens"
    gives: Literal["tokens", "text"] = "tokens"
    #: It gives text, and spells the control tokens that a request names (`Request.shown`). With
    #: token ids, the reader spells them.
    shows_control: bool = False
    sampling: list[str] = []  #: fields of `Ask` that it honours: `temperature`, `ignore_eos`, ...
    guides: list[str] = []  #: kinds of `Guide` that it can follow
    continues: list[str] = []  #: kinds of `Guide` that it can follow from within an answer


class Instance(Struct, frozen=True, kw_only=True):
    """One loaded engine, described by its host once it can take requests."""

    id: str
    engine: str  #: its name on the command line
    version: str
    device: str
    context_length: int  #: tokens that one sequence may hold
    slots: int  #: sequences that it computes at once
    capabilities: Capabilities


class InstanceRecord(Struct, frozen=True, kw_only=True):
    """One instance, as discovery holds it, under its worker's lease."""

    instance: Instance
    namespace: str
    component: str
    endpoint: str
    model: str  #: the name that requests give
    identity: str  #: of the model card, hex; instances of one model name share it
    card: str  #: the card's hash, hex: its name among the blobs
    host: str  #: an id of the worker's machine; loopback is used on that machine alone
    hostname: str = ""  #: of the worker's machine, for operators
    addresses: list[str] = []  #: HOST:PORT to dial for `--request-plane tcp`; else empty
    loopback: str = ""  #: one more address, for an ingress with the same `host`
    key: str = ""  #: hex; with it a dialling ingress proves that it has read this record
    started: float  #: unix seconds
    pid: int
    replaces: bool = False  #: its card may be another one than that of older instances
    weight: float = 1.0  #: the share of new requests for its card, 0 to 1
    oldest: int = 1  #: the oldest version of the protocol that the worker speaks
    newest: int = 1
