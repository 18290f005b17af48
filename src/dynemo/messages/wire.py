"""What only travels: greetings, envelopes and failures between processes."""

from msgspec import Struct

from dynemo.messages.answer import Delta
from dynemo.messages.records import Instance, Load


class FinalDelta(Delta, frozen=True, array_like=True):
    """The last delta of a sequence, as it travels: a worker adds what it is busy with now."""

    load: Load | None = None


class Hello(Struct, frozen=True):
    """The first frame's body on the socket to an engine host."""

    protocol: int
    instance: Instance


class Greeting(Struct, frozen=True):
    """The first frame's body between a worker and an ingress, in both directions."""

    protocol: int
    instance: str  #: the worker's id, in both directions
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
