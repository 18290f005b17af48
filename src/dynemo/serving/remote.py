"""A remote instance: asked on the request plane, answering on the response plane."""

import logging
from collections.abc import AsyncGenerator
from contextlib import closing
from time import monotonic

from dynemo.connection.buffer import CancelReader
from dynemo.connection.client import encoded
from dynemo.errors import DynemoError, InstanceSilent
from dynemo.messages.answer import Delta
from dynemo.messages.records import InstanceRecord, Load
from dynemo.messages.request import Request
from dynemo.messages.wire import Envelope
from dynemo.planes.requests.base import RequestPlane
from dynemo.planes.responses.listen import ResponseListener

log = logging.getLogger("dynemo.pool")

#: Seconds that an instance may owe the answer to a request before others are better asked, and
#: after which one request tries it again.
_QUIET_SECONDS = 0.25
_SILENT_SECONDS = 10.0


class RemoteInstance:
    """Who answers for one record of discovery. Holds no connection and no task of its own."""

    def __init__(
        self, record: InstanceRecord, requests: RequestPlane, responses: ResponseListener
    ) -> None:
        self.record = record
        self._requests = requests
        self._responses = responses
        self._owes_since = 0.0  # on the clock of `time.monotonic`; 0.0: it owes no answer

    @property
    def load(self) -> Load:
        """As last told; nothing where no connection to it is open, so that it is asked again."""
        return self._responses.load_of(self.record.instance.id) or Load()

    @property
    def is_doubtful(self) -> bool:
        """Others are better asked: it is draining, or owes an answer to a request or to a
        heartbeat.

        Until it answers, late perhaps; a request that was not answered is forgotten in the end.
        """
        name = self.record.instance.id
        if self._responses.is_draining(name):
            return True
        if self._is_owing():
            return monotonic() - self._owes_since > _QUIET_SECONDS
        return self._responses.is_late(name)

    async def generate(
        self, request: Request, cancel_reader: CancelReader | None = None
    ) -> AsyncGenerator[Delta, None]:
        """See `Backend.generate`. Raises InstanceGone or PlaneAway for what `Unavailable` covers.

        EngineLost comes after everything that the worker had sent: what is left may be asked of
        another instance.
        """
        body = encoded(request)
        name = self.record.instance.id
        with closing(self._responses.pending_stream(name, cancel_reader)) as pending:
            is_carried = len(body) <= self._requests.max_request
            await self._ask(pending.envelope(body, is_carried=is_carried))
            pending.expect(self._responses.open_seconds)
            buffer = pending.buffer
            while True:
                delta = await buffer.take()
                yield delta
                if delta.finish is not None:
                    return

    async def _ask(self, envelope: Envelope) -> None:
        """A cancelled one leaves it open whether an answer would have come."""
        asked = monotonic()
        if not self._is_owing():
            self._owes_since = asked
        try:
            await self._requests.ask(self.record, envelope)
        except InstanceSilent as error:
            if self._owes_since == asked:
                log.warning("%s Others are asked first until it answers.", error)
            raise
        except DynemoError:
            self._owes_since = 0.0
            raise
        self._owes_since = 0.0

    def _is_owing(self) -> bool:
        since = self._owes_since
        return (
            since != 0.0
            and since > self._responses.opened_at(self.record.instance.id)
            and monotonic() - since < _SILENT_SECONDS
        )
