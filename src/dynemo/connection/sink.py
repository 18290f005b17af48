"""A worker's way from its engine host to an ingress: deltas go on as they come."""

from msgspec import msgpack

from dynemo.connection.buffer import StreamBuffer, decoded
from dynemo.connection.server import StreamSink
from dynemo.wire.frames import FrameKind

_encode = msgpack.Encoder().encode


class ForwardingBuffer(StreamBuffer):
    """Sends what one read brings on at once, in one frame; no task is woken for it.

    A single delta goes on as it is, not decoded. Kept, and given to who takes, is only what comes
    while the outlet takes nothing more, what follows on that until it is taken, and the end.
    """

    __slots__ = ("_link", "_stream", "sent")

    def __init__(self, outlet: StreamSink) -> None:
        super().__init__()
        self.sent = 0  #: deltas that were sent on
        self._link = outlet.link
        self._stream = outlet.stream

    def data(self, bodies: list[bytes]) -> bool:
        if self._held is not None or not self._link.is_writable:
            return super().data(bodies)
        body = bodies[0] if len(bodies) == 1 else _encode(decoded(bodies))
        self._link.send(FrameKind.DATA, self._stream, body)
        self.sent += len(bodies)
        return True
