"""Frames over one asyncio transport: the shell around `wire/` that every plane shares.

All frames that are sent within one turn of the event loop leave in one write.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import cast

from dynemo.errors import WireError
from dynemo.wire.frames import Frame, FrameKind, FrameReader, header


class FramedConnection(asyncio.Protocol):
    """One framed connection.

    `on_frames` gets the frames of each read in one call. A WireError that it raises closes the
    connection, as malformed bytes do. `on_closed` is called once, with the reason if there is one;
    never for a connection that was not established.
    """

    #: When the peer last sent something, on the clock of `time.monotonic`.
    heard = 0.0
    #: The other end's address, for the log.
    peer = "a local process"

    def __init__(
        self,
        on_frames: Callable[[list[Frame]], None],
        on_closed: Callable[[Exception | None], None],
    ) -> None:
        self._on_frames = on_frames
        self._on_closed = on_closed
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        #: False while the peer reads slower than we send; `drain` waits for it.
        self.is_writable = True
        self._writable = asyncio.Event()
        self._writable.set()
        self._broken: WireError | None = None
        self._closed = asyncio.Event()
        #: Called once when the connection is established, before anything is read.
        self.on_connected: Callable[[], None] | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, kind: FrameKind, stream: int, body: bytes = b"") -> None:
        """Queues one frame for this turn's write. A closed connection drops it."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(header(kind, stream, body))
        self._out.append(body)

    async def drain(self) -> None:
        """Returns when the peer has read enough of what was sent, or the connection has closed."""
        await self._writable.wait()

    async def wait_closed(self) -> None:
        """Returns when an established connection has closed."""
        await self._closed.wait()

    def close(self) -> None:
        """Sends what is queued, then closes."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: WireError | None = None) -> None:
        """Closes at once and drops what is queued. `on_closed` gets the first reason given."""
        self._out.clear()
        self._broken = self._broken or reason
        if self._transport is not None:
            self._transport.abort()

    def cap(self, max_body: int) -> None:
        """Sets the longest body that the peer may send."""
        self._reader.max_body = max_body

    def _flush(self) -> None:
        if self._out and self.is_open:
            assert self._transport is not None
            self._transport.write(b"".join(self._out))
        self._out.clear()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it
        self.heard = monotonic()
        name = transport.get_extra_info("peername")
        if isinstance(name, tuple):
            host = str(name[0]).removeprefix("::ffff:")  # IPv4 on a socket for both
            self.peer = f"[{host}]:{name[1]}" if ":" in host else f"{host}:{name[1]}"
        if self.on_connected is not None:
            self.on_connected()

    def data_received(self, data: bytes) -> None:
        if self._broken is not None:
            return
        self.heard = monotonic()
        try:
            self._on_frames(self._reader.feed(data))
        except WireError as error:
            self._broken = error
            self.close()  # not abort: an ERROR that says why is still queued

    def pause_writing(self) -> None:
        self.is_writable = False
        self._writable.clear()

    def resume_writing(self) -> None:
        self.is_writable = True
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.resume_writing()
        self._closed.set()
        self._on_closed(self._broken or exc)
