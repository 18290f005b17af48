"""Reads frames and records as a peer of protocol 1 does: its structs, frames and rules.

This module is frozen: nobody edits it when the project changes. The code under the name of a file
is a copy of that file at commit 6c7f784, comments included, with two exceptions: `struct.Struct` is
called `Packed` here, and `raised` does not log the trace. The code after the last line of dashes is
new and says how to use the copies.
"""

import zlib
from collections.abc import Callable
from enum import Enum, IntEnum, auto
from struct import Struct as Packed
from typing import Any, Literal, NamedTuple

from msgspec import Struct, msgpack

# --- link.py

#: Bumped when a frame's meaning changes. Both sides of a connection must agree.
PROTOCOL = 1

# --- runtime/responses/incoming.py

#: The longest body from a peer that has not said who it is.
MAX_UNGREETED = 4096

# --- messages.py

FinishReason = Literal["stop", "length"]


class Sampling(Struct, frozen=True, omit_defaults=True):
    """How the next token is chosen. The defaults are plain sampling at temperature 1."""

    temperature: float = 1.0  #: 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  #: 0 is off
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}


class Guide(Struct, frozen=True, array_like=True):
    """What an answer's text must be: an instance of a JSON schema, or a sentence of a grammar."""

    kind: Literal["json_schema", "grammar"]
    text: str  #: the schema as JSON, or the grammar in GBNF


class Ask(Struct, frozen=True, kw_only=True):
    """One chat request, before a model has seen it. None means: not said, the default decides."""

    messages: list[dict[str, Any]] = []
    model: str | None = None
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    max_tokens: int | None = None
    n: int | None = None
    stop: list[str] | None = None
    ignore_eos: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    guide: Guide | None = None


class Request(Struct, frozen=True, kw_only=True):
    """One sequence to generate. Always carries both token ids and the text they came from."""

    id: str
    token_ids: list[int]
    prompt: str
    max_tokens: int  #: at least 1; prompt and answer together fit the context
    is_unbounded: bool = False  #: nobody has named `max_tokens`: it is what the context leaves
    sampling: Sampling
    stop_ids: list[int] = []  #: EOS ids; the sequence ends after the first of them
    ignore_eos: bool = False  #: `stop_ids` is empty and the engine's own EOS is off as well
    guide: Guide | None = None
    embed: bool = False  #: not an answer is wanted but the prompt's embedding
    #: As they were sent, but for their contents: each is one text. For an engine that takes them.
    messages: list[dict[str, Any]] = []
    continued: int = 0  #: of `token_ids`, at their end: answered by another instance before
    traceparent: str = ""  #: see `trace.py`; empty where the input knows of no trace


class Finish(Struct, frozen=True, array_like=True):
    """How a sequence ended, in the engine's own count."""

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int  #: every token generated, a final EOS included
    cached_tokens: int = 0  #: of the prompt, found in the engine's cache


class Delta(Struct, frozen=True, array_like=True):
    """What decoding steps added to one sequence: ids, or texts where the engine gives text.

    The last delta of a sequence has `finish`; nothing follows it.
    """

    token_ids: list[int] = []
    texts: list[str] = []  #: one for each token; empty for one that does not end a character
    finish: Finish | None = None
    cached_tokens: int = 0  #: of the prompt; said once, where the engine knows before its finish
    embedding: bytes = (
        b""  #: with the finish, where one was asked for: 32-bit floats, little-endian
    )


class Load(Struct, frozen=True, array_like=True):
    """What an engine is busy with now."""

    running: int = 0  #: sequences being computed
    waiting: int = 0  #: sequences in its queue
    kv_use: float = 0.0  #: share of the KV cache in use, 0 to 1


class Ending(Delta, frozen=True, array_like=True):
    """The last delta of a sequence, as it travels: a worker adds what it is busy with now."""

    load: Load | None = None


class Capabilities(Struct, frozen=True, kw_only=True):
    """What an engine can honour. A request that needs more is refused before the engine sees it."""

    tasks: tuple[str, ...] = ("chat",)  #: `chat`, `embed`
    takes: Literal["tokens", "text", "messages"] = "tokens"
    gives: Literal["tokens", "text"] = "tokens"
    #: Names of `Sampling` fields (and `ignore_eos`) that it honours.
    sampling: list[str] = []
    guides: list[str] = []  #: kinds of `Guide` that it can follow


class Instance(Struct, frozen=True, kw_only=True):
    """Who answers: one loaded engine. Said by the engine host once it can take requests."""

    id: str
    engine: str  #: its name on the command line
    version: str
    device: str
    context_length: int  #: tokens that one sequence may hold
    slots: int  #: sequences that it computes at once
    capabilities: Capabilities


class Hello(Struct, frozen=True):
    """The first frame's body on the socket to an engine host."""

    protocol: int
    instance: Instance


class Greeting(Struct, frozen=True):
    """The first frame's body between a worker and an ingress, in both directions."""

    protocol: int
    instance: str  #: the worker's id, whoever says it
    key: bytes  #: the key of the side that reads this
    answer_key: bytes = b""  #: of an ingress that dials: the key for the HELLO that answers


class Envelope(Struct, frozen=True, kw_only=True):
    """One request on its way from an ingress to the worker that shall answer it."""

    key: bytes  #: the ingress's connection key
    addresses: list[str]  #: HOST:PORT where it awaits the answer, in the order to try them
    loopback: str = ""  #: one more, for a worker whose host id is `host`
    host: str = ""
    stream: int
    token: bytes  #: opens that stream, once
    request: bytes = b""  #: a Request; empty: it follows on the connection, as REQUEST


class Failure(Struct, frozen=True):
    """An error on its way to the other process: one class of `errors.py`, by name."""

    error: str
    message: str
    param: str | None = None
    trace: str = ""


class Record(Struct, frozen=True, kw_only=True):
    """One instance, as discovery holds it, under its worker's lease."""

    instance: Instance
    namespace: str
    component: str
    endpoint: str
    model: str  #: the name that requests give
    identity: str  #: of the model card, hex; instances of one model name share it
    card: str  #: where the card lies among the blobs: its hash, hex
    host: str  #: an id of the worker's machine, so that loopback is used on that machine alone
    addresses: list[str] = []  #: HOST:PORT to dial for `--request-plane tcp`; else empty
    loopback: str = ""  #: one more address, for who has the same `host`
    key: str = ""  #: hex; with it a dialling ingress proves that it has read this record
    started: float  #: unix seconds
    pid: int


# --- accounts.py: what a worker itself reads of a Request, before its engine host reads all


class _Head(Struct):
    """A Request's own fields that are needed here; the rest is not decoded."""

    id: str
    traceparent: str = ""


# --- text/source.py


class GgufSource(Struct, frozen=True, tag="gguf"):
    """The part of a GGUF's metadata that decides what its tokenizer does."""

    metadata: dict[str, Any]


class HfSource(Struct, frozen=True, tag="hf"):
    """`tokenizer.json` byte for byte, and what counts of `tokenizer_config.json`."""

    file: bytes
    settings: dict[str, Any]


TokenizerSource = GgufSource | HfSource

# --- text/card_wire.py

MAX_CARD = 64 << 20
VERSION = 1
_MAGIC = b"DYNCARD"


class _Wire(Struct, frozen=True, kw_only=True):
    name: str
    architecture: str
    tokenizer: TokenizerSource
    templates: dict[str, str]
    special_tokens: dict[str, str]
    eos_ids: list[int]
    context_length: int
    kv_bytes_per_token: int
    defaults: Ask


# --- text/card_identity.py


class CardIdentity(Struct, frozen=True, kw_only=True):
    """A hash of each part, in hex, and one of all of them (`whole`)."""

    whole: str
    name: str
    vocabulary: str
    merges: str
    special_tokens: str
    pre_tokenization: str
    template: str
    eos: str


# --- errors.py


class DynemoError(Exception):
    """The root. `str(error)` is one sentence for the user; no trailing newline."""

    status = 500
    exit_code = 1
    #: OpenAI's `type` and `code` in an error body.
    type = "server_error"
    code: str | None = None
    #: The request field that is wrong, where there is one.
    param: str | None = None
    #: The traceback of code that is the user's own, for the log.
    trace: str = ""


class UsageError(DynemoError):
    status = 400
    exit_code = 2
    type = "invalid_request_error"


class ModelError(UsageError):
    code = "invalid_model"


class EngineNotInstalled(UsageError):
    code = "engine_not_installed"


class RequestError(DynemoError):
    status = 400
    type = "invalid_request_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        if code is not None:
            self.code = code


class UnsupportedField(RequestError):
    code = "unsupported_parameter"


class ContextLengthExceeded(RequestError):
    code = "context_length_exceeded"


class UnknownModel(RequestError):
    status = 404
    code = "model_not_found"


class BodyTooLarge(RequestError):
    status = 413
    code = "request_too_large"


class Unavailable(DynemoError):
    """`retry_after` is in seconds."""

    status = 503
    code = "unavailable"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InstanceGone(Unavailable):
    code = "instance_gone"


class InstanceSilent(InstanceGone):
    code = "instance_silent"


class PlaneAway(Unavailable):
    code = "request_plane_away"


class EngineError(DynemoError):
    code = "engine_error"


class EngineLost(EngineError):
    status = 502
    code = "engine_lost"


class EngineNotLoaded(EngineLost):
    exit_code = 2


class SlowReader(DynemoError):
    status = 408
    code = "slow_reader"


class WireError(DynemoError):
    code = "protocol_error"


# --- wire/frames.py

HEADER = Packed("!IBQ")
MAX_BODY = 16 * 1024 * 1024


class Kind(IntEnum):
    HELLO = 1  # who I am; the first frame of the answering side
    OPEN = 2  # from a worker: a stream's one-time token; to it, without NATS: an Envelope
    REQUEST = 3  # a Request to answer on this stream
    DATA = 4  # a Delta
    END = 5  # an Ending: the last Delta of a stream, the one with its finish
    ERROR = 6  # a Failure instead of END; on stream 0, of the connection
    CANCEL = 7  # nobody waits for this stream any more
    PING = 8
    PONG = 9  # the answer to PING; from the answering side with a Load
    GOAWAY = 10  # no further requests, please; on a stream: ask another for what is left of it


_KINDS = frozenset(int(kind) for kind in Kind)


class Frame(NamedTuple):
    kind: int
    stream: int
    body: bytes


_SIZE = HEADER.size
_pack = HEADER.pack
_unpack_from = HEADER.unpack_from
#: Makes a Frame of a tuple in a third of the time that its own constructor takes.
_frame = tuple.__new__


def header(kind: Kind, stream: int, body: bytes) -> bytes:
    """What goes before the body. Raises WireError for one over the cap."""
    if len(body) > MAX_BODY:
        raise WireError(f"a frame's body of {len(body)} bytes is over the cap of {MAX_BODY}")
    return _pack(len(body), kind, stream)


def encode(kind: Kind, stream: int, body: bytes = b"") -> bytes:
    """The bytes of one frame. Raises WireError for a body over the cap."""
    return header(kind, stream, body) + body


class FrameReader:
    """Bytes as they come in, frames as they complete. Keeps at most one partial frame.

    The pieces of a partial frame are joined once, when it is whole: joined at each read, a body of
    16 MiB would be copied some hundred times over.
    """

    def __init__(self, max_body: int = MAX_BODY) -> None:
        #: May be changed between two calls of `feed`.
        self.max_body = max_body
        self._pieces: list[bytes] = []
        self._held = 0
        self._needed = 0  # bytes, before anything can be said about what is held

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, in order.

        Raises WireError at a length over the cap or an unknown kind; nothing can be read after it.
        """
        if self._pieces:
            self._pieces.append(data)
            self._held += len(data)
            if self._held < self._needed:
                return []
            data = b"".join(self._pieces)
            self._pieces = []
        frames: list[Frame] = []
        max_body = self.max_body
        start, size, needed = 0, len(data), _SIZE
        while start + _SIZE <= size:
            length, kind, stream = _unpack_from(data, start)
            if length > max_body:
                raise WireError(f"a frame announces {length} bytes, over the cap of {max_body}")
            if kind not in _KINDS:
                raise WireError(f"a frame of unknown kind {kind}")
            body = start + _SIZE
            end = body + length
            if end > size:
                needed = end - start
                break
            frames.append(_frame(Frame, (kind, stream, data[body:end])))
            start = end
        if start < size:
            self._pieces, self._held, self._needed = [data[start:]], size - start, needed
        return frames


# --- wire/state.py


class Connection(Enum):
    GREETING = auto()
    OPEN = auto()
    DRAINING = auto()
    CLOSED = auto()


class Stream(Enum):
    PROMISED = auto()
    WAITING = auto()
    STREAMING = auto()
    ENDED = auto()


_ON_CONNECTION = {
    (Connection.GREETING, Kind.HELLO): Connection.OPEN,
    (Connection.GREETING, Kind.ERROR): Connection.CLOSED,
    (Connection.OPEN, Kind.PING): Connection.OPEN,
    (Connection.OPEN, Kind.PONG): Connection.OPEN,
    (Connection.OPEN, Kind.GOAWAY): Connection.DRAINING,
    (Connection.OPEN, Kind.ERROR): Connection.CLOSED,
    (Connection.DRAINING, Kind.PING): Connection.DRAINING,
    (Connection.DRAINING, Kind.PONG): Connection.DRAINING,
    (Connection.DRAINING, Kind.ERROR): Connection.CLOSED,
}
_ON_STREAM: dict[int, Stream] = {
    Kind.OPEN: Stream.WAITING,
    Kind.DATA: Stream.STREAMING,
    Kind.END: Stream.ENDED,
    Kind.ERROR: Stream.ENDED,
    Kind.GOAWAY: Stream.ENDED,
}
_CARRIES_STREAMS = (Connection.OPEN, Connection.DRAINING)
_TO_ANSWERING = {
    (Connection.GREETING, Kind.HELLO): Connection.OPEN,
    (Connection.OPEN, Kind.PING): Connection.OPEN,
    (Connection.OPEN, Kind.PONG): Connection.OPEN,
}
_ASKED: frozenset[int] = frozenset({Kind.OPEN, Kind.REQUEST, Kind.CANCEL, Kind.ERROR})


def after(state: Connection, frame: Frame) -> Connection:
    """The connection's state after a frame on stream 0. Raises WireError where there is none."""
    try:
        return _ON_CONNECTION[state, Kind(frame.kind)]
    except KeyError:
        raise _unexpected(state, frame) from None


def stream_after(connection: Connection, frame: Frame) -> Stream:
    """The state of an open stream after one of its frames. Raises WireError if there is none."""
    after_kind = _ON_STREAM.get(frame.kind)
    if after_kind is None or connection not in _CARRIES_STREAMS:
        raise _unexpected(connection, frame)
    return after_kind


def answering_after(state: Connection, frame: Frame) -> Connection:
    """The connection's state after any frame that the answering side gets. Raises WireError."""
    if frame.stream and state is Connection.OPEN and frame.kind in _ASKED:
        return state
    try:
        if not frame.stream:
            return _TO_ANSWERING[state, Kind(frame.kind)]
    except KeyError:
        pass
    raise _unexpected(state, frame)


def _unexpected(state: Connection, frame: Frame) -> WireError:
    return WireError(
        f"a {Kind(frame.kind).name} frame on stream {frame.stream} "
        f"while the connection is {state.name.lower()}"
    )


# --- text/card_wire.py


def _body(data: bytes) -> bytes:
    head, version = data[: len(_MAGIC)], data[len(_MAGIC) : len(_MAGIC) + 1]
    if head != _MAGIC or not version:
        raise _damaged("it is none")
    if version[0] != VERSION:
        raise ModelError(
            f"the registered model card has version {version[0]}, and this dynemo-run reads "
            f"version {VERSION}: run one version of dynemo-run everywhere"
        )
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(data[len(_MAGIC) + 1 :], MAX_CARD + 1)
    except zlib.error as error:
        raise _damaged(str(error)) from None
    if len(body) > MAX_CARD:
        raise _damaged(f"it has more than {MAX_CARD:,} bytes")
    if not inflater.eof or inflater.unused_data:
        raise _damaged("it is cut short" if not inflater.eof else "more follows its end")
    return body


def _damaged(reason: str) -> ModelError:
    return ModelError(
        f"the registered model card cannot be read ({reason}): start the model's workers again"
    )


# --- runtime/streams.py


def raised(body: bytes) -> DynemoError:
    """The error that the other process raised, as its own class where it is one of ours.

    The class is looked up by its name; what has no such name here is an EngineError. Only a
    RequestError gets its param; a code or a retry_after of its own does not travel.
    """
    failure = msgpack.decode(body, type=Failure)
    kind = globals().get(failure.error)  # there: of the module errors.py
    if not isinstance(kind, type) or not issubclass(kind, DynemoError):
        kind = EngineError
    if issubclass(kind, RequestError):
        return kind(failure.message, param=failure.param)
    return kind(failure.message)


# --- answers.py


def failure(error: BaseException) -> bytes:
    """An error as the other process will raise it. What is not ours becomes an EngineError."""
    if not isinstance(error, DynemoError):
        error = EngineError(f"{type(error).__name__}: {error}")
    return msgpack.encode(Failure(type(error).__name__, str(error), error.param, error.trace))


# ---


def check_greeting(greeting: Greeting, *, key: bytes, instance: str = "") -> None:
    """The one rule for versions, the same in incoming.py (an ingress) and in tcp.py (a worker).

    What is raised closes the connection, and nothing is sent. `instance`: whose HELLO is expected,
    where that is known.
    """
    if greeting.key != key:
        raise WireError("its HELLO has a wrong key")
    if greeting.protocol != PROTOCOL:
        raise WireError(f"it speaks protocol {greeting.protocol}, not {PROTOCOL}")
    if not greeting.instance or instance not in ("", greeting.instance):
        raise WireError("its HELLO names another instance")


def read_card(data: bytes) -> _Wire:
    """A registered card. Raises ModelError for another version of it."""
    return msgpack.decode(_body(data), type=_Wire)


#: What a peer makes of a frame's body, by the side that reads it. A kind that is missing there has
#: a body that nobody reads; OPEN to an ingress is a bare token, and not msgpack.
AT_INGRESS: dict[Kind, type[Struct]] = {
    Kind.HELLO: Greeting,
    Kind.DATA: Delta,
    Kind.END: Ending,
    Kind.ERROR: Failure,  # on a stream; on stream 0 it closes the connection, unread
    Kind.PONG: Load,
}
AT_WORKER: dict[Kind, type[Struct]] = {
    Kind.HELLO: Greeting,
    Kind.OPEN: Envelope,
    Kind.REQUEST: Request,
}


def read(kind: int, body: bytes, *, at: Literal["ingress", "worker"]) -> Any:
    """The body as that side has it; None where it looks at none. Raises msgspec.DecodeError."""
    wanted = (AT_INGRESS if at == "ingress" else AT_WORKER).get(Kind(kind))
    return None if wanted is None else msgpack.decode(body, type=wanted)


def read_asked(body: bytes) -> Envelope | None:
    """A message on the request plane, at a worker. None: it asks for the load."""
    return msgpack.decode(body, type=Envelope) if body else None


def read_reply(body: bytes, *, of_load: bool = False) -> Load | DynemoError | None:
    """Its reply, at an ingress. None: it is accepted. A refusal is never read as a load."""
    if of_load:
        return msgpack.decode(body, type=Load)
    return raised(body) if body else None


#: What each kind of value under /dynemo/ is read as.
IN_DISCOVERY: dict[str, Callable[[bytes], Any]] = {
    "instances": msgpack.Decoder(Record).decode,
    "models": msgpack.Decoder(CardIdentity).decode,
    "blobs": read_card,
}


def read_stored(key: str, value: bytes) -> Any:
    """A value as it lies under its key; of a card that lies in one chunk."""
    _, _, first, second, *_ = key.split("/")
    return IN_DISCOVERY["blobs" if first == "blobs" else second](value)
