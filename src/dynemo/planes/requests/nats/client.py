"""The NATS client: its servers, its credentials, and what a server's refusal means.

nats-py accepts a server without TLS although TLS is required, and never finishes reading a
credentials file without a JWT. It stops reading for good when a PONG arrives after its `flush` has
given up. This module corrects these.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from msgspec import DecodeError, msgpack

from dynemo.connection.tls import explain
from dynemo.errors import InstanceGone, UsageError
from dynemo.messages.records import InstanceRecord, Load
from dynemo.planes.names import is_name_part
from dynemo.planes.requests.base import OnRequest
from dynemo.spelling import quoted
from dynemo.wire.deltas import decode_load
from dynemo.wire.failures import encode_error

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

#: The header of an empty message whose sender can read a `LoadReport`. Older ones read a `Load`.
REPORT = "Dynemo-LoadReport"
_RETRY_SECONDS = 0.2
_CLOSE_SECONDS = 1.0
_REFUSALS = ("authorization", "authentication", "account", "nkey", "signature")


@dataclass(frozen=True)
class NatsSettings:
    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    credentials: str | None = None  #: the path of a .creds file
    nkey: str | None = field(default=None, repr=False)  #: a seed
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    wait: float = 0.0  #: seconds to wait for a server that does not answer yet

    @property
    def where(self) -> str:
        """The servers, for messages: without the credentials that a URL may hold."""
        return ", ".join(_public(server) for server in self.servers)

    @property
    def identity(self) -> str:
        if self.credentials:
            return f"the credentials of {self.credentials}"
        if self.nkey:
            return "the nkey of NATS_AUTH_NKEY"
        if self.user:
            return f"user {self.user} and its password"
        return "this token" if self.token else "a client without credentials"


def _public(server: str) -> str:
    scheme, mark, rest = server.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def make_client(settings: NatsSettings) -> "Client":
    """Raises UsageError for settings that no server can accept."""
    from nats.aio.client import Client

    for server in settings.servers:
        _check_url(server)
    _check_identity(settings)
    client = Client()
    _correct(client)
    if settings.tls is None:
        return client
    logging.getLogger("asyncio").addFilter(_is_no_eof_warning)
    take = client._process_info

    async def take_under_tls(info: dict[str, Any], initial_connection: bool = False) -> None:
        # Before we send credentials in plain text.
        if initial_connection and not info.get("tls_required"):
            raise _PlainServer
        await take(info, initial_connection)

    client._process_info = take_under_tls  # type: ignore[method-assign]
    return client


def _correct(client: "Client") -> None:
    """Replaces methods that do not expect a failure."""
    end, take_pong, begin = client._close, client._process_pong, client._process_connect_init

    async def end_quietly(status: int, do_cbs: bool = True) -> None:
        # It runs in a task that nobody awaits; what it cannot flush is lost either way.
        with contextlib.suppress(OSError):
            await end(status, do_cbs)

    async def take_late_pong() -> None:
        if client._pongs and client._pongs[0].done():  # it would raise, and end the reading task
            client._pongs[0] = asyncio.get_running_loop().create_future()
        await take_pong()

    async def begin_or_close() -> None:
        try:
            await begin()
        except BaseException:
            if client._transport is not None:
                client._transport.close()  # type: ignore[no-untyped-call]
            raise

    client._close = end_quietly  # type: ignore[method-assign]
    client._process_pong = take_late_pong  # type: ignore[method-assign]
    client._process_connect_init = begin_or_close  # type: ignore[method-assign]


def _is_no_eof_warning(record: logging.LogRecord) -> bool:
    """nats-py wraps a TLS stream as if it were plain, and asyncio warns whenever one ends."""
    return "returning true from eof_received()" not in record.getMessage()


def options(settings: NatsSettings) -> dict[str, Any]:
    """Arguments of `Client.connect`, without its callbacks."""
    return {
        "servers": list(settings.servers),
        "user_credentials": settings.credentials,
        "nkeys_seed_str": settings.nkey,
        "user": settings.user,
        "password": settings.password,
        "token": settings.token,
        "tls": settings.tls,
        "name": "dynemo",
        "pending_size": 0,
        "connect_timeout": 2,
        "reconnect_time_wait": _RETRY_SECONDS,
        "max_reconnect_attempts": -1,
        "ping_interval": 5,
        "max_outstanding_pings": 2,
    }


def subject(record: InstanceRecord) -> str:
    """Raises InstanceGone for a name that would change the subject, or NATS's own lines."""
    name = (record.namespace, record.component, record.endpoint, record.instance.id)
    if not all(map(is_name_part, name)):
        raise InstanceGone("The instance has a name that NATS cannot carry.")
    return ".".join(("dynemo", *name))


def read_load(reply: bytes, record: InstanceRecord) -> Load:
    """Raises InstanceGone."""
    try:
        return decode_load(reply)
    except DecodeError as error:
        name = record.instance.id[:8]
        raise InstanceGone(f"Worker {name} sent a load that does not decode.") from error


def absence(reason: str, settings: NatsSettings) -> str:
    """Returns sentences that say that no server answers, and why; the reason may be empty."""
    return (
        f"No NATS server answers at {settings.where}{f' ({reason})' if reason else ''}. "
        "Start one with `dynemo-run services up`, or set its address with --nats."
    )


def refusal(error: Exception, settings: NatsSettings) -> str:
    """Why no server will ever accept us, as a sentence; empty if a later attempt may succeed."""
    if isinstance(error, ssl.SSLError):
        return (
            f"NATS at {settings.where}: {explain(error)}. Set its files with NATS_AUTH_CA, "
            "NATS_AUTH_CLIENT_CERT and NATS_AUTH_CLIENT_KEY."
        )
    if isinstance(error, _PlainServer):
        return f"NATS at {settings.where} has no TLS, and the settings require TLS."
    reason = str(error).removeprefix("nats: ").strip("'\" ")
    if any(word in reason.lower() for word in _REFUSALS):
        return (
            f"NATS at {settings.where} refuses {settings.identity} ({reason}). Set credentials "
            "with NATS_AUTH_USERNAME and NATS_AUTH_PASSWORD, NATS_AUTH_TOKEN, NATS_AUTH_NKEY or "
            "NATS_AUTH_CREDENTIALS_FILE."
        )
    return ""


def denial(error: Exception, settings: NatsSettings) -> str:
    """The right that a server denies us, as sentences; empty for another error."""
    reason = str(error).removeprefix("nats: ").strip("'\" ")
    if "permissions violation" not in reason.lower():
        return ""
    return (
        f"NATS at {settings.where} denies {settings.identity} a right ({reason}). Allow it to "
        "publish and to subscribe to `dynemo.>` and `_INBOX.>`."
    )


def reason_of(error: Exception) -> str:
    """The text of an error, without the number that an OSError puts before it."""
    return str(getattr(error, "strerror", None) or error)


def is_whole(client: "Client | None", served: int) -> bool:
    """Whether it is open, reads, and has all subscriptions: its inbox, and so many others."""
    if client is None or client.is_closed:
        return False
    reading = client._reading_task
    is_reading = reading is None or not reading.done() or not client.is_connected
    return is_reading and len(client._subs) > served


async def close(client: "Client") -> None:
    """Closes it within a second: with TLS, it may wait for its server forever."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await client.close()


async def confirm(client: "Client") -> None:
    """Returns when the server has read what was sent before, or after 2 s."""
    from nats.errors import Error

    with contextlib.suppress(Error, TimeoutError):
        await client.flush(timeout=1)  # its PING may leave ahead of what is buffered
        await client.flush(timeout=1)


async def unsubscribe(subscription: "Subscription") -> None:
    """Drains it: answers what the server sends until it has read the UNSUB.

    nats-py's own `drain` stops too early: its flush writes the PING before the UNSUB.
    """
    from nats.errors import Error

    with contextlib.suppress(Error, TimeoutError):  # it ends with the connection
        async with asyncio.timeout(_CLOSE_SECONDS):
            connection = subscription._conn
            await connection._send_unsubscribe(subscription._id)
            await connection.flush()
            await connection.flush()  # this PING follows the UNSUB
            await subscription.drain()  # type: ignore[no-untyped-call]


class _PlainServer(ConnectionError):
    """A server without TLS."""


def _check_url(server: str) -> None:
    url = urlsplit(server if "://" in server else f"nats://{server}")
    try:
        is_good = (
            url.scheme in ("nats", "tls", "ws", "wss") and bool(url.hostname) and url.port != 0
        )
    except ValueError:
        is_good = False
    if not is_good:
        raise UsageError(
            f"{quoted(_public(server))} is not a NATS server; give nats://HOST:PORT or "
            "tls://HOST:PORT."
        )


def _check_identity(settings: NatsSettings) -> None:
    if bool(settings.user) != bool(settings.password):
        raise UsageError("NATS needs a user and a password together; set both or none.")
    if settings.credentials is not None:
        _check_file(Path(settings.credentials))
    if settings.nkey is not None:
        _check_seed(settings.nkey, "NATS_AUTH_NKEY")


def _check_file(path: Path) -> None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise UsageError(
            f"Cannot read the NATS credentials file {quoted(str(path))}: {error.strerror}."
        ) from None
    except UnicodeDecodeError:
        lines = []
    after = {
        line.strip("- "): lines[at + 1] for at, line in enumerate(lines[:-1]) if "BEGIN" in line
    }
    if "BEGIN NATS USER JWT" not in after or "BEGIN USER NKEY SEED" not in after:
        raise UsageError(
            f"{quoted(str(path))} is not a NATS credentials file: it has no user JWT and seed."
        )
    _check_seed(after["BEGIN USER NKEY SEED"], quoted(str(path)))


def _check_seed(seed: str, source: str) -> None:
    import nkeys  # type: ignore[import-untyped]

    try:
        nkeys.from_seed(bytearray(seed.strip().encode())).wipe()
    except (nkeys.NkeysError, ValueError):
        raise UsageError(f"{source} does not hold an nkey seed, which starts with SU.") from None


async def reply_to(message: "Msg", handler: OnRequest, load: Callable[[], Load]) -> None:
    """Replies to a message: to a request with nothing or with the handler's error, to an empty
    message with the load."""
    from nats.errors import Error

    reply = b""
    try:
        if message.data:
            await handler(message.data)
        else:
            now = load()
            wants_report = REPORT in (message.headers or {})
            reply = msgpack.encode(
                now if wants_report else Load(now.running, now.waiting, now.kv_use)
            )
    except Exception as error:
        reply = encode_error(error)
    with contextlib.suppress(Error):  # the plane is away: the request has failed at the ingress
        await message.respond(reply)
