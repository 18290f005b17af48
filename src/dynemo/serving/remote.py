"""A remote instance: it gets requests on the request plane, and answers on the response plane."""

import logging
from collections.abc import AsyncGenerator
from contextlib import closing
from time import monotonic
from typing import Literal

from dynemo.connection.buffer import CancelReader
from dynemo.connection.client import encode_request
from dynemo.errors import DynemoError, InstanceSilent, PlaneAway
from dynemo.messages.answer import Delta
from dynemo.messages.records import InstanceRecord, Load
from dynemo.messages.request import Request
from dynemo.messages.wire import Envelope
from dynemo.planes.requests.base import ASK_SECONDS, RequestPlane
from dynemo.planes.responses.listen import ResponseListener

log = logging.getLogger("dynemo.pool")

#: Seconds without a reply to a request after which an instance is doubtful, and after which one
#: request tries it again.
_QUIET_SECONDS = 0.25
_SILENT_SECONDS = 10.0
#: Seconds in which an instance must take the rest of an answer, for which a client waits.
_MOVED_SECONDS = 1.0


class RemoteInstance:
    """The instance of one record of discovery. It owns no connection and no task."""

    def __init__(
        self, record: InstanceRecord, requests: RequestPlane, responses: ResponseListener
    ) -> None:
        self.record = record
        self._requests = requests
        self._responses = responses
        self._silent_since = 0.0  # on the clock of `time.monotonic`; 0.0: no reply is due

    @property
    def load(self) -> Load:
        """The last load that it sent; an empty one while no connection to it is open."""
        return self._responses.load_of(self.record.instance.id) or Load()

    @property
    def state(self) -> Literal["ready", "draining", "silent"]:
        """`silent`: it is late with its reply to a request or to a heartbeat. A reply ends that,
        even a late one. So does time, for a request without a reply."""
        name = self.record.instance.id
        if self._responses.is_draining(name):
            return "draining"
        if self._is_silent():
            is_late = monotonic() - self._silent_since > _QUIET_SECONDS
        else:
            is_late = self._responses.is_late(name)
        return "silent" if is_late else "ready"

    @property
    def is_doubtful(self) -> bool:
        """Whether it gets requests only if no other instance can serve them."""
        return self.state != "ready"

    async def generate(
        self, request: Request, cancel_reader: CancelReader | None = None
    ) -> AsyncGenerator[Delta, None]:
        """See `Backend.generate`. Raises InstanceGone or PlaneAway for what `Unavailable` covers.

        EngineLost comes after everything that the worker sent: the rest may be asked of another
        instance.
        """
        body = encode_request(request)
        name = self.record.instance.id
        with closing(self._responses.pending_stream(name, cancel_reader)) as pending:
            is_carried = len(body) <= self._requests.max_request
            seconds = _MOVED_SECONDS if request.continued else ASK_SECONDS
            await self._ask(pending.envelope(body, is_carried=is_carried), seconds)
            pending.expect(self._responses.open_seconds)
            buffer = pending.buffer
            while True:
                delta = await buffer.take()
                yield delta
                if delta.finish is not None:
                    return

    async def wait_for_plane(self) -> None:
        """Returns when the request plane can carry requests."""
        await self._requests.wait_until_up()

    async def probe(self) -> None:
        """Asks for a stream without a request, and cancels it. The worker must connect for that.
        Its engine does nothing. Raises Unavailable as `generate` does."""
        name = self.record.instance.id
        with closing(self._responses.pending_stream(name)) as pending:
            await self._ask(pending.envelope(b"", is_carried=False))

    async def _ask(self, envelope: Envelope, seconds: float = ASK_SECONDS) -> None:
        """Sends the request. Cancelling it tells nothing about the instance."""
        asked = monotonic()
        if not self._is_silent():
            self._silent_since = asked
        try:
            await self._requests.ask(self.record, envelope, seconds)
        except InstanceSilent as error:
            if self._silent_since == asked:
                log.warning("%s Other instances get requests first until it replies.", error)
            raise
        except PlaneAway:
            if self._silent_since == asked:
                self._silent_since = 0.0
            raise
        except DynemoError:
            self._silent_since = 0.0
            raise
        self._silent_since = 0.0

    def _is_silent(self) -> bool:
        since = self._silent_since
        return (
            since != 0.0
            and since > self._responses.opened_at(self.record.instance.id)
            and monotonic() - since < _SILENT_SECONDS
        )
