"""A peer that sends and receives raw frames, with any range of versions in its HELLO."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import msgpack

from dynemo.connection.addresses import split_address
from dynemo.connection.framed import FramedConnection
from dynemo.messages.wire import Greeting
from dynemo.wire.frames import Frame, FrameKind
from dynemo.wire.versions import VersionRange
from support.waiting import until


class FramePeer:
    """A worker or an ingress. `got` holds the frames that have arrived and are not read yet."""

    def __init__(self) -> None:
        self.got: list[Frame] = []
        self.is_closed = False
        self.connection = FramedConnection(self._take, self._close)

    def _take(self, frames: list[Frame]) -> None:
        self.got += frames

    def _close(self, _: Exception | None) -> None:
        self.is_closed = True

    async def dial(self, address: str) -> None:
        host, port = split_address(address)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self.connection, host, port)

    def greet(
        self, spoken: VersionRange, instance_id: str, key: bytes, answer: bytes = b""
    ) -> None:
        newest = spoken.newest if spoken.newest > spoken.oldest else 0
        greeting = Greeting(spoken.oldest, instance_id, key, answer, newest)
        self.connection.send(FrameKind.HELLO, 0, msgpack.encode(greeting))

    async def next(self, kind: FrameKind) -> Frame:
        await until(lambda: any(frame.kind == kind for frame in self.got))
        found = next(frame for frame in self.got if frame.kind == kind)
        self.got.remove(found)
        return found


@asynccontextmanager
async def accepted(peers: list[FramePeer]) -> AsyncIterator[str]:
    """Listens and returns its address. Adds a peer to `peers` for each connection."""

    def make() -> FramedConnection:
        peers.append(FramePeer())
        return peers[-1].connection

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for peer in peers:
            peer.connection.close()
        await until(lambda: all(peer.is_closed for peer in peers))
