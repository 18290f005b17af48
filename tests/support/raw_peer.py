"""A worker or an ingress that sends raw frames, and bytes that break the protocol."""

import asyncio
import os

from msgspec import msgpack

from dynemo.connection.addresses import split_address
from dynemo.connection.framed import FramedConnection
from dynemo.messages.wire import Greeting
from dynemo.wire.frames import HEADER, MAX_BODY, Frame, FrameKind
from dynemo.wire.versions import SPOKEN
from support.waiting import until

#: An array in 4,000 others, as the value of a field that nobody reads.
_DEEP = b"\x81\xa1x" + b"\x91" * 4000 + b"\xc0"
#: Each closes the connection that it arrives on.
GARBAGE = {
    "noise": os.urandom(64 * 1024),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "oversize": HEADER.pack(MAX_BODY + 1, FrameKind.HELLO, 0),
    "large before HELLO": HEADER.pack(8192, FrameKind.HELLO, 0),
    "unknown kind": HEADER.pack(0, 99, 1),
    "DATA before HELLO": HEADER.pack(0, FrameKind.DATA, 1),
    "OPEN before HELLO": HEADER.pack(0, FrameKind.OPEN, 1),
    "PING before HELLO": HEADER.pack(0, FrameKind.PING, 0),
    "deep HELLO": HEADER.pack(len(_DEEP), FrameKind.HELLO, 0) + _DEEP,
    "empty HELLO": HEADER.pack(0, FrameKind.HELLO, 0),
}


class Peer:
    """A worker or an ingress that sends raw frames."""

    def __init__(self) -> None:
        self.got: list[Frame] = []
        self.is_closed = False
        self.connection = FramedConnection(lambda frames: self.got.extend(frames), self._close)

    def _close(self, _: Exception | None) -> None:
        self.is_closed = True

    async def dial(self, address: str) -> None:
        host, port = split_address(address)
        await asyncio.get_running_loop().create_connection(lambda: self.connection, host, port)

    def greet(self, instance_id: str, key: bytes, protocol: int = SPOKEN.newest) -> None:
        self.connection.send(
            FrameKind.HELLO, 0, msgpack.encode(Greeting(protocol, instance_id, key))
        )

    async def next(self, kind: FrameKind) -> Frame:
        await until(lambda: any(frame.kind == kind for frame in self.got))
        found = next(frame for frame in self.got if frame.kind == kind)
        self.got.remove(found)
        return found
