"""A connection over loopback TCP that reads and writes frames with the code of protocol 1."""

import asyncio
import contextlib

from dynemo.connection.addresses import split_address
from support import protocol_1


class OldConnection:
    """A connection of an old peer. It answers each PING, with `load` as the body.

    `state` is its first state: an old worker that dials starts in OPEN. `close` fails if a frame
    arrived that the old tables do not allow.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        is_worker: bool,
        state: protocol_1.Connection = protocol_1.Connection.GREETING,
    ) -> None:
        self.frames: list[protocol_1.Frame] = []  #: frames that have arrived and are not read yet
        self.load: bytes = b""
        self.is_closed = False
        self._is_worker = is_worker
        self._state = state
        self._reader = reader
        self._writer = writer
        self._frames = protocol_1.FrameReader()
        self._came = asyncio.Event()
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def dial(cls, address: str, *, is_worker: bool) -> "OldConnection":
        reader, writer = await asyncio.open_connection(*split_address(address))
        state = protocol_1.Connection.OPEN if is_worker else protocol_1.Connection.GREETING
        return cls(reader, writer, is_worker=is_worker, state=state)

    def send(self, kind: int, stream: int, body: bytes = b"") -> None:
        self._writer.write(protocol_1.encode(protocol_1.Kind(kind), stream, body))

    async def next(self, kind: int, stream: int) -> protocol_1.Frame:
        """Waits for the next frame of this kind on this stream, and returns it."""
        async with asyncio.timeout(10):
            while True:
                for frame in self.frames:
                    if (frame.kind, frame.stream) == (kind, stream):
                        self.frames.remove(frame)
                        return frame
                assert not self.is_closed, f"closed; no {kind} on {stream} in {self.frames}"
                self._came.clear()
                await self._came.wait()

    async def wait_closed(self) -> None:
        async with asyncio.timeout(10):
            await asyncio.wait([self._task])
            self._task.result()

    async def close(self) -> None:
        self._writer.close()
        await self.wait_closed()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _read(self) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                while data := await self._reader.read(65536):
                    for frame in self._frames.feed(data):
                        self._take(frame)
        finally:
            self.is_closed = True
            self._came.set()

    def _take(self, frame: protocol_1.Frame) -> None:
        if self._is_worker:
            self._state = protocol_1.answering_after(self._state, frame)
        elif frame.stream:
            protocol_1.stream_after(self._state, frame)
        else:
            self._state = protocol_1.after(self._state, frame)
        if frame.kind == protocol_1.Kind.PING:
            self.send(protocol_1.Kind.PONG, 0, self.load)
        self.frames.append(frame)
        self._came.set()
