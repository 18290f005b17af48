"""The request plane over NATS: a subject for each instance, and a reply inbox for each client.

An empty message asks for the load, any other is an Envelope. An empty reply accepts a request, any
other is a Failure. With the header `REPORT`, the reply to an empty message is a `LoadReport`.

nats-py alone is not enough in four places (`client.py` has more):

- `request` waits for its whole timeout when the connection breaks. Here, replies arrive on an inbox
  of our own. When the connection breaks, they fail at once, or the requests are sent again to
  another server that takes over.
- It buffers messages during an outage. Here, it does not (`pending_size=0`): the request has failed
  by the time the server is back.
- It reconnects every 2 s, 60 times. Here, it tries every 0.2 s, without end.
- It closes permanently on some errors of the server (expired credentials, too many connections),
  and does not always report it. Here, a new client then subscribes to the subjects again.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from msgspec import msgpack

from dynemo.connection.addresses import Dialable
from dynemo.errors import InstanceGone, InstanceSilent, PlaneAway, UsageError
from dynemo.messages.records import InstanceRecord, Load
from dynemo.messages.wire import Envelope
from dynemo.planes.requests.base import ASK_SECONDS, OnRequest, wait_for_reply
from dynemo.planes.requests.nats.client import (
    REPORT,
    NatsSettings,
    absence,
    close,
    confirm,
    denial,
    is_whole,
    make_client,
    options,
    read_load,
    reason_of,
    refusal,
    reply_to,
    subject,
    unsubscribe,
)
from dynemo.planes.requests.nats.pulse import Pulse
from dynemo.planes.requests.nats.replies import PendingReplies
from dynemo.spelling import quoted
from dynemo.wire.failures import decode_error

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

log = logging.getLogger("dynemo.requests")

_OPEN_SECONDS = 2.5
_LOOK_SECONDS = 1.0
_REOPEN_SECONDS = 0.5  # between attempts at a server that has refused us
_TAKEOVER_SECONDS = 1.8  # for another server of several to take over
_RESUBSCRIBE_SECONDS = 2.0  # in which a worker subscribes at the server that takes over
_ENVELOPE_BYTES = 4096  # room for the fields of an envelope besides its request
_NO_RESPONDERS = "503"

_encode = msgpack.Encoder().encode

OnMessage = Callable[["Msg"], Awaitable[None]]


class NatsRequests:
    """A `RequestPlane` and a `RequestServer` on one connection. Made by `nats_requests`."""

    reach = Dialable([], "")
    key = ""

    def __init__(self, settings: NatsSettings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._inbox = ""
        self._pending = PendingReplies()
        self._served: dict[str, OnMessage] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._ended = asyncio.Event()
        self._up = asyncio.Event()
        self._back_at = -_RESUBSCRIBE_SECONDS  # when workers began to subscribe again
        self._is_opening = False
        self._refused_attempts = 0  # no server was listening
        self._last_error = ""
        self._trouble = ""  # the last one in the log
        self._denied = ""  # a right that the present connection lacks
        self._pulse = Pulse(lambda: self._client, self._leave_silent)

    @property
    def max_request(self) -> int:
        return (self._client.max_payload if self._client is not None else 0) - _ENVELOPE_BYTES

    @property
    def trouble(self) -> str:
        """See `RequestPlane`."""
        if self._connected_client() is None or self._pulse.is_silent:
            return self._away()
        return self._denied

    async def ask(
        self, record: InstanceRecord, envelope: Envelope, timeout: float = ASK_SECONDS
    ) -> None:
        if failure := await self._request(record, _encode(envelope), timeout):
            raise decode_error(failure)

    async def load(self, record: InstanceRecord, timeout: float = ASK_SECONDS) -> Load:
        return read_load(await self._request(record, b"", timeout, {REPORT: "1"}), record)

    async def _request(
        self,
        record: InstanceRecord,
        body: bytes,
        timeout: float,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        """The instance's reply. Raises InstanceGone, InstanceSilent, PlaneAway."""
        from nats.errors import Error

        name = record.instance.id[:8]
        client, asked = await self._connected(), monotonic()
        try:
            with self._pending.expect(subject(record), body) as (number, pending):
                async with asyncio.timeout(timeout):
                    inbox = f"{self._inbox}.{number}"
                    await client.publish(pending.subject, body, reply=inbox, headers=headers)
                message = await wait_for_reply(pending.reply, timeout)
        except TimeoutError:
            if not self._pulse.was_prompt_since(asked):
                raise PlaneAway(self._away()) from None
            raise InstanceSilent(f"Worker {name} did not reply in {timeout:g} s.") from None
        except Error as cause:
            problem, last = self._away(), quoted(str(cause))
            raise PlaneAway(f"{problem} The last error is {last}.") from cause
        if (message.headers or {}).get("Status") == _NO_RESPONDERS:
            error = InstanceGone(f"Nobody takes requests for worker {name}.")
            if self._has_others or monotonic() - self._back_at < _RESUBSCRIBE_SECONDS:
                error.returns_within = _RESUBSCRIBE_SECONDS
            raise error
        return bytes(message.data)

    @asynccontextmanager
    async def serve(
        self, record: InstanceRecord, handler: OnRequest, load: Callable[[], Load] = Load
    ) -> AsyncIterator[None]:
        problem: Exception | None = None
        name = subject(record)
        async with asyncio.TaskGroup() as tasks:

            async def on_message(message: "Msg") -> None:
                tasks.create_task(reply_to(message, handler, load))

            self._served[name] = on_message
            try:
                await self._subscribe(name, on_message)
                if self._denied:
                    raise UsageError(self._denied)
                yield
            except Exception as error:  # raised below: a task group would wrap it
                problem = error
            finally:
                del self._served[name]
                if (subscription := self._subscriptions.pop(name, None)) is not None:
                    await unsubscribe(subscription)
        if problem is not None:
            raise problem

    async def _connected(self) -> "Client":
        """Waits a moment if another server may take over. Raises PlaneAway."""
        if self._connected_client() is None and self._has_others:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TAKEOVER_SECONDS):
                    await self.wait_until_up()
        client = self._connected_client()
        if client is None or self._pulse.is_silent:
            raise PlaneAway(self._away())
        return client

    def _connected_client(self) -> "Client | None":
        client = self._client
        return client if client is not None and client.is_connected else None

    async def wait_until_up(self) -> None:
        while self._connected_client() is None or self._pulse.is_silent:
            await self._pulse.wait_until_awake()
            if self._connected_client() is None:
                self._up.clear()  # the client reports a lost connection only in a later turn
                await self._up.wait()

    async def _leave_silent(self) -> None:
        """Goes to another server, if there is one. nats-py does so after 15 s."""
        if self._client is not None and self._has_others:
            await self._client.force_reconnect()

    async def open(self, seconds: float) -> None:
        """Raises UsageError: at once if a server refuses us, or if none listens and `settings.wait`
        is 0; else after `seconds`."""
        from nats.errors import Error

        client = make_client(self._settings)
        self._refused_attempts = 0
        self._denied = ""
        self._is_opening = True
        try:
            async with asyncio.timeout(seconds):
                await client.connect(**options(self._settings), **self._callbacks(client))
                self._is_opening = False
                self._client = client
                self._inbox = client.new_inbox()
                await client.subscribe(f"{self._inbox}.*", cb=self._pending.take)
                for name, on_message in self._served.items():
                    await self._subscribe(name, on_message)
        except (TimeoutError, OSError, Error, UsageError) as error:
            self._client = None
            self._last_error = reason_of(error) or self._last_error
            await close(client)
            if isinstance(error, UsageError):
                raise
            raise UsageError(absence(self._last_error, self._settings)) from None
        finally:
            self._is_opening = False
        self._up.set()

    async def keep(self) -> None:
        """Makes a new client whenever the last one has closed permanently. It polls as well, since
        the client does not always report that."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._ended.wait()
            client = self._client
            if not self._ended.is_set() and is_whole(client, len(self._subscriptions)):
                continue
            self._ended.clear()
            self._up.clear()
            self._client = None  # ignores its callbacks from now on
            why = f" ({client.last_error})" if client is not None and client.last_error else ""
            log.warning("The connection to NATS was closed%s. Opening a new one.", why)
            if client is not None:
                await close(client)
            while True:
                await asyncio.sleep(_REOPEN_SECONDS)
                try:
                    await self.open(_OPEN_SECONDS)
                    break
                except UsageError as error:
                    self._log_once(str(error))
            if self._client is not None:
                await self._on_reconnected(self._client)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await close(client)

    async def _subscribe(self, name: str, on_message: OnMessage) -> None:
        """Returns when the server has confirmed it. nats-py repeats it after an outage."""
        if self._client is not None:
            self._subscriptions[name] = await self._client.subscribe(name, cb=on_message)
            await confirm(self._client)

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
        known = self._client.servers if self._client else ()
        return max(len(self._settings.servers), len(known)) > 1

    def _away(self) -> str:
        if self._connected_client() is not None:
            return f"NATS at {self._settings.where} does not answer."
        return self._trouble or f"NATS at {self._settings.where} is not reachable now."

    def _log_once(self, problem: str) -> None:
        """Logs a problem that may recur."""
        if problem != self._trouble:
            self._trouble = problem
            log.warning("%s", problem)

    async def _on_error(self, error: Exception) -> None:
        """Raises to end `Client.connect`. Never raises later, so that reconnecting continues."""
        self._last_error = reason_of(error) or type(error).__name__
        log.debug("The NATS client reports %s.", quoted(self._last_error))
        if why := denial(error, self._settings):
            self._denied = why
            self._log_once(why)
        elif why := refusal(error, self._settings):
            if self._is_opening:
                raise UsageError(why)
            self._log_once(why)
        elif self._is_opening and isinstance(error, ConnectionRefusedError):
            self._refused_attempts += 1
            if not self._settings.wait and self._refused_attempts >= len(self._settings.servers):
                raise error

    async def _on_disconnected(self, client: "Client") -> None:
        if client is not self._client:
            return
        self._up.clear()
        self._pulse.begin_anew()
        log.warning("The connection to NATS is lost.")
        if self._has_others:  # a server that takes over in time gets the requests again
            asyncio.get_running_loop().call_later(_TAKEOVER_SECONDS, self._give_up)
        else:
            self._give_up()

    def _give_up(self) -> None:
        """Fails all pending replies, if there is still no connection."""
        if not self._up.is_set():
            self._pending.fail(PlaneAway(self._away()))

    async def _on_reconnected(self, client: "Client") -> None:
        """Sends all pending requests again: the request or its reply may be lost. An instance takes
        a request once, even if it arrives twice."""
        if client is not self._client or not is_whole(client, len(self._subscriptions)):
            return
        log.warning("NATS is back.")
        self._trouble = self._denied = ""
        self._back_at = monotonic()
        self._up.set()
        await self._pending.send_again(client, self._inbox)

    async def _on_closed(self, client: "Client") -> None:
        if client is self._client:
            self._ended.set()


@asynccontextmanager
async def nats_requests(settings: NatsSettings) -> AsyncIterator[NatsRequests]:
    """Connects, and reconnects while entered, however long it takes.

    Raises UsageError within 3 s, or `settings.wait`; it says how to start a server.
    """
    plane = NatsRequests(settings)
    await plane.open(max(_OPEN_SECONDS, settings.wait))
    watching = asyncio.create_task(plane._pulse.watch(), name="nats")
    keeping = asyncio.create_task(plane.keep(), name="nats")
    try:
        yield plane
    finally:
        watching.cancel()
        keeping.cancel()
        await asyncio.wait([watching, keeping])
        await plane.close()
