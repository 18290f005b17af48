"""The request plane over NATS: a subject for each instance, and a reply inbox for each client.

An empty message asks for the instance's load; any other is an Envelope.

What nats-py does by itself is not enough in five places:

- `request` waits for its whole time-out when the connection breaks under it. Replies are awaited
  here on an inbox of our own, and all of them fail as soon as the connection has gone, or are
  asked for again from another server that takes over.
- Messages of an outage are not kept for later (`pending_size=0`): who asked has been told by then.
- It tries again every 2 s, 60 times. Here it is a fifth of a second, and without an end.
- It closes for good on some errors of the server (expired credentials, too many connections), and
  does not always say so. Then a new client is made, and the subjects are subscribed to again.
- `flush` writes its PING past what waits to be written: the first PONG says nothing about a SUB
  before it, the second does.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from msgspec import DecodeError, msgpack

from dynemo.connection.addresses import Dialable
from dynemo.connection.client import raised
from dynemo.connection.server import failure
from dynemo.errors import InstanceGone, InstanceSilent, PlaneAway, UsageError
from dynemo.messages.records import InstanceRecord, Load
from dynemo.messages.wire import Envelope
from dynemo.planes.requests.base import ASK_SECONDS, OnRequest, wait_for_reply
from dynemo.planes.requests.nats.client import (
    NatsSettings,
    PendingReply,
    close,
    make_client,
    options,
    refusal,
    unsubscribe,
)

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

log = logging.getLogger("dynemo.requests")

_OPEN_SECONDS = 2.5
_LOOK_SECONDS = 1.0
_REOPEN_SECONDS = 0.5  # a server that has refused us is not to be asked too often
_TAKEOVER_SECONDS = 1.0  # in which another server of several takes over, or counts as away too
_ROOM = 4096  # for what an envelope holds besides the request
_NO_RESPONDERS = "503"

_encode = msgpack.Encoder().encode
_decode_load = msgpack.Decoder(Load).decode

OnMessage = Callable[["Msg"], Awaitable[None]]


def subject(record: InstanceRecord) -> str:
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
        self._asked: dict[str, PendingReply] = {}
        self._served: dict[str, OnMessage] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._ended = asyncio.Event()
        self._up = asyncio.Event()
        self._is_opening = False
        self._silent = 0  # attempts that nobody has taken
        self._last_error = ""
        self._trouble = ""  # that was said in the log

    @property
    def max_request(self) -> int:
        return (self._client.max_payload if self._client is not None else 0) - _ROOM

    async def ask(
        self, record: InstanceRecord, envelope: Envelope, timeout: float = ASK_SECONDS
    ) -> None:
        if failed := await self._request(record, _encode(envelope), timeout):
            raise raised(failed)

    async def load(self, record: InstanceRecord, timeout: float = ASK_SECONDS) -> Load:
        answer = await self._request(record, b"", timeout)
        try:
            return _decode_load(answer)
        except DecodeError as error:
            raise InstanceGone(f"Worker {record.instance.id[:8]} does not say its load.") from error

    async def _request(self, record: InstanceRecord, body: bytes, timeout: float) -> bytes:
        """What the instance replies. Raises InstanceGone, PlaneAway."""
        from nats.errors import Error

        name = record.instance.id[:8]
        number = str(next(self._numbers))
        try:
            async with asyncio.timeout(timeout):
                client = await self._connected()
                asked = self._asked[number] = PendingReply(subject(record), body)
                await client.publish(asked.subject, body, reply=f"{self._inbox}.{number}")
            message = await wait_for_reply(asked.reply, timeout)
        except TimeoutError:
            raise InstanceSilent(f"Worker {name} did not reply in {timeout:g} s.") from None
        except Error as error:
            raise PlaneAway(f"{self._away()} ({error})") from error
        finally:
            self._asked.pop(number, None)
        if (message.headers or {}).get("Status") == _NO_RESPONDERS:
            raise InstanceGone(f"Nobody takes requests for worker {name}.")
        return bytes(message.data)

    @asynccontextmanager
    async def serve(
        self, record: InstanceRecord, handler: OnRequest, load: Callable[[], Load] = Load
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
                if (subscription := self._subscriptions.pop(name, None)) is not None:
                    await unsubscribe(subscription)
        if problem is not None:
            raise problem

    async def _connected(self) -> "Client":
        """Waits a moment where another server may take over. Raises PlaneAway."""
        client = self._client
        if (client is None or not client.is_connected) and self._has_others:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TAKEOVER_SECONDS):
                    await self._up.wait()
            client = self._client
        if client is None or not client.is_connected:
            raise PlaneAway(self._away())
        return client

    async def open(self, seconds: float) -> None:
        """Raises UsageError at once when a server refuses us, or when nobody listens at any of
        them and nobody is to be waited for; else when none has answered by then."""
        from nats.errors import Error

        client = make_client(self._settings)
        self._silent = 0
        try:
            async with asyncio.timeout(seconds):
                self._is_opening = True
                await client.connect(**options(self._settings), **self._callbacks(client))
                self._is_opening = False
                self._client = client
                self._inbox = client.new_inbox()
                await client.subscribe(f"{self._inbox}.*", cb=self._on_reply)
                for name, on_message in self._served.items():
                    await self._subscribe(name, on_message)
        except (TimeoutError, OSError, Error, UsageError) as error:
            self._client = None
            self._last_error = str(error) or self._last_error
            await close(client)
            if isinstance(error, UsageError):
                raise
            raise UsageError(
                f"No NATS server answers at {self._settings.where}"
                f"{f' ({self._last_error})' if self._last_error else ''}: "
                "start one with `dynemo-run services up`, or say where it is with --nats."
            ) from None
        finally:
            self._is_opening = False
        self._up.set()

    async def keep(self) -> None:
        """Makes a new client whenever the last one has closed for good, which it does not always
        say: it is looked at as well."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._ended.wait()
            client = self._client
            if client is not None and not self._ended.is_set() and self._is_whole(client):
                continue
            self._ended.clear()
            self._up.clear()
            self._client = None  # from here on it is not listened to
            why = client.last_error if client is not None else None
            log.warning("the connection to NATS was closed (%s); opening it anew", why)
            if client is not None:
                await close(client)
            while True:
                await asyncio.sleep(_REOPEN_SECONDS)
                try:
                    await self.open(_OPEN_SECONDS)
                    break
                except UsageError as error:
                    self._tell(str(error))
            if self._client is not None:
                await self._on_reconnected(self._client)

    def _is_whole(self, client: "Client") -> bool:
        """Not closed, and not come back without what was subscribed to."""
        return not client.is_closed and len(client._subs) > len(self._subscriptions)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await close(client)

    async def _subscribe(self, name: str, on_message: OnMessage) -> None:
        """Returns once the server knows; while it is away, nats-py does it on its return."""
        from nats.errors import Error

        if self._client is None:
            return
        self._subscriptions[name] = await self._client.subscribe(name, cb=on_message)
        with contextlib.suppress(Error, TimeoutError):
            await self._client.flush(timeout=1)
            await self._client.flush(timeout=1)

    def _callbacks(self, client: "Client") -> dict[str, Any]:
        return {
            "error_cb": self._on_error,
            "disconnected_cb": partial(self._on_disconnected, client),
            "reconnected_cb": partial(self._on_reconnected, client),
            "closed_cb": partial(self._on_closed, client),
        }

    @property
    def _has_others(self) -> bool:
        """Whether another server may take over from this one."""
        client = self._client
        return len(self._settings.servers) > 1 or (client is not None and len(client.servers) > 1)

    def _away(self) -> str:
        return self._trouble or f"NATS at {self._settings.where} is not reachable now."

    def _tell(self, trouble: str) -> None:
        """Once, however often it is tried."""
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("%s", trouble)

    async def _on_reply(self, message: "Msg") -> None:
        asked = self._asked.get(message.subject.rpartition(".")[2])
        if asked is not None and not asked.reply.done():
            asked.reply.set_result(message)

    async def _on_error(self, error: Exception) -> None:
        """Raises out of `Client.connect`; its later attempts have to go on."""
        self._last_error = str(error) or type(error).__name__
        log.debug("NATS: %s", self._last_error)
        if why := refusal(error, self._settings):
            if self._is_opening:
                raise UsageError(why)
            self._tell(why)
        elif self._is_opening and isinstance(error, ConnectionRefusedError):
            self._silent += 1
            if not self._settings.wait and self._silent >= len(self._settings.servers):
                raise error

    async def _on_disconnected(self, client: "Client") -> None:
        if client is not self._client:
            return
        self._up.clear()
        log.warning("the connection to NATS is lost")
        if self._has_others:  # asks them again, if one takes over in time
            asyncio.get_running_loop().call_later(_TAKEOVER_SECONDS, self._give_up)
        else:
            self._give_up()

    def _give_up(self) -> None:
        """Tells those who wait for a reply, where there is no connection that could bring it."""
        if not self._up.is_set():
            for asked in self._asked.values():
                asked.fail(PlaneAway(self._away()))

    async def _on_reconnected(self, client: "Client") -> None:
        """What was asked is asked again: the reply, or the question, went with the old connection.
        An instance takes a request once, whichever way it has come."""
        from nats.errors import Error

        if client is not self._client or not self._is_whole(client):
            return
        log.warning("NATS is back")
        self._trouble = ""
        self._up.set()
        for number, asked in list(self._asked.items()):
            with contextlib.suppress(Error):
                if not asked.reply.done():
                    inbox = f"{self._inbox}.{number}"
                    await client.publish(asked.subject, asked.body, reply=inbox)

    async def _on_closed(self, client: "Client") -> None:
        if client is self._client:
            self._ended.set()


async def _reply(message: "Msg", handler: OnRequest, load: Callable[[], Load]) -> None:
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
