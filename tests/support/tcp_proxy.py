"""A TCP proxy between a client and a server. A test can cut it or make it hang.

It uses transports, because it then knows each connection from the start. A stream accepted just
before the cut would have no owner, and would log a warning when it is collected.
"""

import asyncio
from types import TracebackType
from typing import Self, cast

from support.free_ports import free_port


class TcpProxy:
    def __init__(self, target: str) -> None:
        self._host, port = target.rsplit(":", 1)
        self._port = int(port)
        self._sides: set[_Side] = set()
        self._dialling: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._is_cut = False
        self.is_flowing = True
        self._listens = free_port()
        self.address = f"127.0.0.1:{self._listens}"

    async def __aenter__(self) -> Self:
        await self.heal()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.cut()

    async def heal(self) -> None:
        self._is_cut = False
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Side(self), "127.0.0.1", self._listens)
        self.is_flowing = True

    async def cut(self) -> None:
        """Closes all connections, and refuses new ones."""
        self._is_cut = True
        if self._server is not None:
            self._server.close()
        for task in self._dialling:
            task.cancel()
        await asyncio.gather(*self._dialling, return_exceptions=True)
        sides = list(self._sides)
        for side in sides:
            side.transport.abort()
        for side in sides:
            await side.lost.wait()
        if self._server is not None:
            await self._server.wait_closed()

    def hang(self) -> None:
        """Stops all traffic without closing a connection."""
        self.is_flowing = False
        for side in self._sides:
            side.transport.pause_reading()

    def add(self, side: "_Side") -> None:
        """Is called when a side has just connected."""
        self._sides.add(side)
        if self._is_cut:
            side.transport.abort()
        elif side.other is None:
            task = asyncio.create_task(self._dial(side))
            self._dialling.add(task)
            task.add_done_callback(self._dialling.discard)

    def remove(self, side: "_Side") -> None:
        self._sides.discard(side)

    async def _dial(self, side: "_Side") -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Side(self, side), self._host, self._port)
        except OSError:
            side.transport.abort()


class _Side(asyncio.Protocol):
    """One of a client's two connections. The dialled one knows `other` from the start."""

    transport: asyncio.Transport

    def __init__(self, proxy: TcpProxy, other: "_Side | None" = None) -> None:
        self.other = other
        self.lost = asyncio.Event()
        self._proxy = proxy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.pause_reading()
        self._proxy.add(self)
        if self.other is not None:
            self.other.other = self
            if self._proxy.is_flowing:
                self.transport.resume_reading()
                self.other.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._proxy.remove(self)
        self.lost.set()
        if self.other is not None:
            self.other.transport.close()
