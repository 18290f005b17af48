"""Messages that only travel: greetings, envelopes and failures between processes.

Readers skip the fields that they do not know. See `wire/versions.py` for the rules of a change.
"""

from msgspec import Struct

from dynemo.messages.answer import Finish, Scores
from dynemo.messages.records import Instance, Load


class FinalDelta(Struct, frozen=True, array_like=True):
    """The last delta of a stream, as it travels in END: a worker adds its load.

    The first five positions are those of `Delta`. They and `load` are frozen, since every release
    reads `load` at position 5. The later fields of `Delta` follow it.
    """

    token_ids: list[int] = []
    texts: list[str] = []
    finish: Finish | None = None
    cached_tokens: int = 0
    embedding: bytes = b""
    load: Load | None = None
    scores: Scores | None = None


class Hello(Struct, frozen=True):
    """The first frame's body on the socket to an engine host. Both ends are of one release."""

    protocol: int
    instance: Instance


class EngineLoad(Load, frozen=True, array_like=True):
    """The body of PONG on the socket to an engine host. Both ends are of one release."""

    #: Grows with each part of a prompt that the engine has computed; None: it does not tell.
    progress: int | None = None


class Greeting(Struct, frozen=True):
    """The first frame's body between a worker and an ingress, in both directions.

    Its encoding must stay under 4096 bytes. A peer of protocol 1 reads `protocol` alone and accepts
    only 1.
    """

    protocol: int  #: the oldest version that the sender speaks
    instance: str  #: the worker's id, in both directions
    key: bytes  #: the key of the side that reads this
    answer_key: bytes = b""  #: of an ingress that dials: the key for the HELLO that answers
    newest: int = 0  #: the newest version that the sender speaks; 0: only `protocol`


class Envelope(Struct, frozen=True, kw_only=True):
    """One request on its way from an ingress to the worker that shall answer it."""

    key: bytes  #: the ingress's connection key
    addresses: list[str]  #: HOST:PORT where it awaits the answer, in the order to try them
    loopback: str = ""  #: one more, for a worker whose host id is `host`
    host: str = ""
    stream: int
    token: bytes  #: opens that stream, once
    request: bytes = b""  #: a Request; empty: it follows on the connection, as REQUEST
    drain: bool = False  #: instead of a request: the worker shall stop; it replies InstanceAway
    oldest: int = 1  #: the oldest version that the ingress speaks
    newest: int = 1


class Failure(Struct, frozen=True):
    """An error on its way to the other process; see `wire/failures.py`."""

    error: str  #: the class by the name that protocol 1 knows
    message: str
    param: str | None = None
    trace: str = ""
    code: str = ""  #: the class by its code; empty from a peer that does not send it
    retry_after: int | None = None  #: seconds; of an `Unavailable`
