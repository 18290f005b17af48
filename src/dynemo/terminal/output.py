"""Writes bytes to a pipe, a terminal or a file without blocking the event loop.

A pager that shows its first page, or a terminal stopped with Ctrl-S, may stop reading for any time.
The event loop must continue, because it answers the engine's heartbeats. So unread data waits in
this buffer. It is bounded, because an answer is bounded by the model's context.
"""

import asyncio
import os
import select


class Output:
    """The writing end of `fd`. It stays in blocking mode, because other processes may share it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = bytearray()
        self._error: OSError | None = None
        self._empty: asyncio.Future[None] | None = None
        self._is_watched = False

    def send(self, data: bytes) -> None:
        """Writes as much as possible and keeps the rest.

        Raises OSError (BrokenPipeError if nobody reads).
        """
        if self._error is not None:
            raise self._error
        self._rest += data
        if not self._is_watched:
            self._write()
            if self._error is not None:
                raise self._error

    async def drain(self) -> None:
        """Waits until all data is written. Raises the same errors as `send`."""
        if self._rest and self._error is None:
            self._empty = asyncio.get_running_loop().create_future()
            try:
                await self._empty
            finally:
                self._empty = None
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Drops data that is not written yet. It may be called twice. The descriptor stays open."""
        self._rest.clear()
        self._watch(False)

    def _write(self) -> None:
        try:
            # If `select` reports space, writing PIPE_BUF bytes does not block.
            while self._rest and select.select((), (self._fd,), (), 0)[1]:
                written = os.write(self._fd, self._rest[: select.PIPE_BUF])
                del self._rest[:written]
        except OSError as error:
            self._error = error
            self._rest.clear()
        self._watch(bool(self._rest))
        if not self._rest and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def _watch(self, wanted: bool) -> None:
        if wanted == self._is_watched:
            return
        self._is_watched = wanted
        loop = asyncio.get_running_loop()
        if wanted:
            loop.add_writer(self._fd, self._write)
        else:
            loop.remove_writer(self._fd)
