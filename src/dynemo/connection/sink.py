"""A worker's path from its engine host to an ingress: it forwards deltas as they arrive."""

from msgspec import msgpack

from dynemo.connection.buffer import StreamBuffer
from dynemo.connection.server import StreamSink
from dynemo.wire.deltas import decode_deltas
from dynemo.wire.frames import FrameKind

_encode = msgpack.Encoder().encode


class ForwardingBuffer(StreamBuffer):
    """Forwards the deltas of one read at once, in one frame. No task wakes for it.

    It forwards a single delta as it is, without decoding it. It holds deltas for `take` only while
    the sink is not writable, and then until the reader has taken them; and the last delta.
    """

    __slots__ = ("_connection", "_stream", "sent")

    def __init__(self, sink: StreamSink) -> None:
        super().__init__()
        self.sent = 0  #: deltas that were forwarded
        self._connection = sink.connection
        self._stream = sink.stream

    def data(self, bodies: list[bytes]) -> bool:
        if self._held is not None or not self._connection.is_writable:
            return super().data(bodies)
        body = bodies[0] if len(bodies) == 1 else _encode(decode_deltas(bodies))
        self._connection.send(FrameKind.DATA, self._stream, body)
        self.sent += len(bodies)
        return True
