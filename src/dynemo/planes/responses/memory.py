"""Framed connections within one process: the peer reads in the next turn of the loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from dynemo.connection.addresses import Dialable
from dynemo.connection.framed import FramedConnection
from dynemo.connection.heartbeat import Beat
from dynemo.planes.responses.listen import ResponseListener


class _End(asyncio.Transport):
    """One end of a pair. `peer` is set right after both are made."""

    peer: "_End"

    def __init__(self, connection: FramedConnection) -> None:
        super().__init__()
        self._connection = connection
        self._is_closing = False

    def is_closing(self) -> bool:
        return self._is_closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        asyncio.get_running_loop().call_soon(self.peer.read, bytes(data))

    def read(self, data: bytes) -> None:
        if not self._is_closing:
            self._connection.data_received(data)

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._connection.connection_lost, None)
            loop.call_soon(self.peer.close)

    abort = close


class MemoryNetwork:
    """A network in memory, where ingresses listen and workers dial, with addresses of its own."""

    def __init__(self) -> None:
        self._listening: dict[str, ResponseListener] = {}
        self._ports = count(1)

    @asynccontextmanager
    async def listen(self, beat: Beat | None = None) -> AsyncIterator[ResponseListener]:
        address = f"memory:{next(self._ports)}"
        responses = ResponseListener(Dialable([address], ""), beat or Beat())
        self._listening[address] = responses
        try:
            yield responses
        finally:
            del self._listening[address]
            await responses.close()

    async def dial(self, connection: FramedConnection, address: str, is_same_host: bool) -> None:  # noqa: ARG002
        """Replaces TCP in `ingress_connections`. Raises ConnectionRefusedError."""
        if address not in self._listening:
            raise ConnectionRefusedError(f"nobody listens at {address}")
        accepted = self._listening[address].accept().connection
        one, other = _End(connection), _End(accepted)
        one.peer, other.peer = other, one
        accepted.connection_made(other)
        connection.connection_made(one)
