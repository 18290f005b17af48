"""A remote instance: asked on the request plane, answering on the response plane."""

from collections.abc import AsyncGenerator
from contextlib import closing

from msgspec import msgpack

from dynemo.errors import BodyTooLarge
from dynemo.messages import Delta, Instance, Load, Record, Request
from dynemo.runtime.requests.base import RequestPlane
from dynemo.runtime.responses.listen import Responses
from dynemo.wire.frames import MAX_BODY

_encode = msgpack.Encoder().encode


class RemoteInstance:
    """An `Answerer` for one record of discovery. Holds no connection and no task of its own."""

    def __init__(self, record: Record, requests: RequestPlane, responses: Responses) -> None:
        self.record = record
        self._requests = requests
        self._responses = responses
        self._load = Load()

    @property
    def instance(self) -> Instance | None:
        return None if self.trouble else self.record.instance

    @property
    def load(self) -> Load:
        self._load = self._responses.load_of(self.record.instance.id) or self._load
        return self._load

    @property
    def trouble(self) -> str:
        return "draining" if self._responses.is_draining(self.record.instance.id) else ""

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        """See `Answerer.generate`. Raises InstanceGone or PlaneAway for what `Unavailable` covers.

        EngineLost comes after everything that the worker had sent: what is left may be asked of
        another instance.
        """
        body = _encode(request)
        if len(body) > MAX_BODY:
            raise BodyTooLarge(f"The request is {len(body)} bytes long; at most {MAX_BODY} can go.")
        with closing(self._responses.promise(self.record.instance.id)) as promise:
            is_carried = len(body) <= self._requests.max_request
            await self._requests.ask(self.record, promise.envelope(body, is_carried=is_carried))
            promise.expect(self._responses.open_seconds)
            inbox = promise.inbox
            while True:
                delta = await inbox.take()
                yield delta
                if delta.finish is not None:
                    return
