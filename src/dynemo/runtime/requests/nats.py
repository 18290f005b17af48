"""The request plane over NATS: a subject for each instance, and a reply inbox for each client.

An empty message asks for the instance's load; any other is an Envelope.

What nats-py does by itself is not enough in five places:

- `request` waits for its whole time-out when the connection breaks under it. Replies are awaited
  here on an inbox of our own, and all of them fail as soon as the connection has gone.
- Messages of an outage are not kept for later (`pending_size=0`): who asked has been told by then.
- It tries again every 2 s, 60 times. Here it is a fifth of a second, and without an end.
- It closes for good on some errors of the server (expired credentials, too many connections). Then
  a new client is made, and the subjects are subscribed to again.
- `flush` writes its PING past what waits to be written: the first PONG says nothing about a SUB
  before it, the second does.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import DecodeError, msgpack

from dynemo.answers import failure
from dynemo.errors import InstanceGone, InstanceSilent, PlaneAway, UsageError
from dynemo.messages import Envelope, Load, Record
from dynemo.runtime.addresses import Dialable
from dynemo.runtime.requests.base import ASK_SECONDS, Handler
from dynemo.runtime.streams import raised

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

log = logging.getLogger("dynemo.requests")

_OPEN_SECONDS = 2.5
_RETRY_SECONDS = 0.2
_CLOSE_SECONDS = 1.0
_ROOM = 4096  # for what an envelope holds besides the request
_NO_RESPONDERS = "503"

_encode = msgpack.Encoder().encode
_decode_load = msgpack.Decoder(Load).decode

OnMessage = Callable[["Msg"], Awaitable[None]]


@dataclass(frozen=True)
class NatsSettings:
    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    credentials: str | None = None  #: the path of a .creds file
    user: str | None = None
    password: str | None = None
    token: str | None = None
    tls: ssl.SSLContext | None = None
    wait: float = 0.0  #: seconds to wait for a server that is not there yet


def subject(record: Record) -> str:
    name = (record.namespace, record.component, record.endpoint, record.instance.id)
    return ".".join(("dynemo", *name))


class NatsRequests:
    """A `RequestPlane` and an `Intake` on one connection. Made by `nats_requests`."""

    reach = Dialable([], "")
    key = ""

    def __init__(self, settings: NatsSettings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._inbox = ""
        self._numbers = count(1)
        self._asked: dict[str, asyncio.Future[Msg]] = {}
        self._served: dict[str, OnMessage] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._ended = asyncio.Event()
        self._last_error = ""

    @property
    def max_request(self) -> int:
        return (self._client.max_payload if self._client is not None else 0) - _ROOM

    async def ask(self, record: Record, envelope: Envelope, timeout: float = ASK_SECONDS) -> None:
        if refusal := await self._request(record, _encode(envelope), timeout):
            raise raised(refusal)

    async def load(self, record: Record, timeout: float = ASK_SECONDS) -> Load:
        answer = await self._request(record, b"", timeout)
        try:
            return _decode_load(answer)
        except DecodeError as error:
            raise InstanceGone(f"Worker {record.instance.id[:8]} does not say its load.") from error

    async def _request(self, record: Record, body: bytes, timeout: float) -> bytes:
        """What the instance replies. Raises InstanceGone, PlaneAway."""
        from nats.errors import Error

        name = record.instance.id[:8]
        client = self._client
        if client is None or not client.is_connected:
            raise PlaneAway(self._away())
        number = str(next(self._numbers))
        reply = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                inbox = f"{self._inbox}.{number}"
                await client.publish(subject(record), body, reply=inbox)
                message = await reply
        except TimeoutError:
            raise InstanceSilent(f"Worker {name} did not reply in {timeout:g} s.") from None
        except Error as error:
            raise PlaneAway(f"{self._away()} ({error})") from error
        finally:
            del self._asked[number]
        if (message.headers or {}).get("Status") == _NO_RESPONDERS:
            raise InstanceGone(f"Nobody takes requests for worker {name}.")
        return bytes(message.data)

    @asynccontextmanager
    async def serve(
        self, record: Record, handler: Handler, load: Callable[[], Load] = Load
    ) -> AsyncIterator[None]:
        problem: Exception | None = None
        name = subject(record)
        async with asyncio.TaskGroup() as tasks:

            async def on_message(message: "Msg") -> None:
                tasks.create_task(_reply(message, handler, load))

            self._served[name] = on_message
            try:
                await self._subscribe(name, on_message)
                yield
            except Exception as error:  # not to be wrapped into a group
                problem = error
            finally:
                del self._served[name]
                await _end(self._subscriptions.pop(name))
        if problem is not None:
            raise problem

    async def open(self, seconds: float) -> None:
        """Raises UsageError when no server has answered by then."""
        from nats.aio.client import Client
        from nats.errors import Error

        client = Client()
        self._check_credentials()
        try:
            async with asyncio.timeout(seconds):
                await client.connect(**self._options())
                self._client = client
                self._inbox = client.new_inbox()
                await client.subscribe(f"{self._inbox}.*", cb=self._on_reply)
                for name, on_message in self._served.items():
                    await self._subscribe(name, on_message)
        except (TimeoutError, OSError, Error) as error:
            self._client = None
            self._last_error = str(error) or self._last_error
            with contextlib.suppress(Exception):
                await client.close()
            raise UsageError(
                f"No NATS server answers at {', '.join(self._settings.servers)}"
                f"{f' ({self._last_error})' if self._last_error else ''}: "
                "start one with `dynemo-run services up`, or say where it is with --nats."
            ) from None

    def _check_credentials(self) -> None:
        path = self._settings.credentials
        if path is None:
            return
        if not Path(path).is_file():
            raise UsageError(f"There is no credentials file for NATS at {path}.")
        if find_spec("nkeys") is None:
            raise UsageError("A credentials file for NATS needs `nkeys`: run `pip install nkeys`.")

    async def keep(self) -> None:
        """Makes a new client whenever the last one has closed for good."""
        while True:
            await self._ended.wait()
            self._ended.clear()
            log.warning("the connection to NATS was closed (%s); opening it anew", self._last_error)
            while True:
                with contextlib.suppress(UsageError):
                    await self.open(_OPEN_SECONDS)
                    break
                await asyncio.sleep(_RETRY_SECONDS)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await client.close()

    async def _subscribe(self, name: str, on_message: OnMessage) -> None:
        """Returns once the server knows; while it is away, nats-py does it on its return."""
        from nats.errors import Error

        if self._client is None:
            return
        self._subscriptions[name] = await self._client.subscribe(name, cb=on_message)
        with contextlib.suppress(Error, TimeoutError):
            await self._client.flush(timeout=1)
            await self._client.flush(timeout=1)

    def _options(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "servers": list(settings.servers),
            "user_credentials": settings.credentials,
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
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnected,
            "reconnected_cb": self._on_reconnected,
            "closed_cb": self._on_closed,
        }

    def _away(self) -> str:
        return f"NATS at {', '.join(self._settings.servers)} is not reachable now."

    async def _on_reply(self, message: "Msg") -> None:
        reply = self._asked.get(message.subject.rpartition(".")[2])
        if reply is not None and not reply.done():
            reply.set_result(message)

    async def _on_error(self, error: Exception) -> None:
        self._last_error = str(error) or type(error).__name__
        log.debug("NATS: %s", self._last_error)

    async def _on_disconnected(self) -> None:
        if self._client is not None:
            log.warning("the connection to NATS is lost")
        for reply in self._asked.values():
            if not reply.done():
                reply.set_exception(PlaneAway(self._away()))

    async def _on_reconnected(self) -> None:
        log.warning("NATS is back")

    async def _on_closed(self) -> None:
        if self._client is not None:
            self._ended.set()


async def _end(subscription: "Subscription") -> None:
    """Drains it, so that what the server sends until it knows is still answered."""
    from nats.errors import Error

    with contextlib.suppress(Error, TimeoutError):  # the server forgets it with the connection
        async with asyncio.timeout(_CLOSE_SECONDS):
            await subscription.drain()  # type: ignore[no-untyped-call]


async def _reply(message: "Msg", handler: Handler, load: Callable[[], Load]) -> None:
    from nats.errors import Error

    answer = b""
    try:
        if message.data:
            await handler(message.data)
        else:
            answer = _encode(load())
    except Exception as error:
        answer = failure(error)
    with contextlib.suppress(Error):  # the plane is away: the ingress has been told so
        await message.respond(answer)


@asynccontextmanager
async def nats_requests(settings: NatsSettings) -> AsyncIterator[NatsRequests]:
    """Connects. Raises UsageError within 3 s, or `settings.wait`, that says how to start a server.

    While entered, a connection that is lost is made again, however long it takes.
    """
    plane = NatsRequests(settings)
    await plane.open(max(_OPEN_SECONDS, settings.wait))
    keeper = asyncio.create_task(plane.keep(), name="nats")
    try:
        yield plane
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper
        await plane.close()
