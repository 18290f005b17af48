"""Bytes to a pipe, a terminal or a file, without ever blocking the loop.

A pager that shows its first page, or a terminal stopped with Ctrl-S, stops reading for as long as
it likes. The loop must go on meanwhile: it answers the engine's heartbeats. So what the reader is
not ready for waits here; an answer is bounded by the model's context, and so is what waits.
"""

import asyncio
import os
import select


class Output:
    """The writing end of `fd`, which stays in blocking mode because others may share it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = bytearray()
        self._error: OSError | None = None
        self._empty: asyncio.Future[None] | None = None
        self._is_watched = False

    def send(self, data: bytes) -> None:
        """Write what fits now and keep the rest. Raises OSError (BrokenPipeError: nobody reads)."""
        if self._error is not None:
            raise self._error
        self._rest += data
        if not self._is_watched:
            self._write()
            if self._error is not None:
                raise self._error

    async def drain(self) -> None:
        """Return once all is written. Raises OSError as `send` does."""
        if self._rest and self._error is None:
            self._empty = asyncio.get_running_loop().create_future()
            try:
                await self._empty
            finally:
                self._empty = None
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Forget what is not written yet. May be called twice; the descriptor stays open."""
        self._rest.clear()
        self._watch(False)

    def _write(self) -> None:
        try:
            # PIPE_BUF bytes do not block where `select` says that there is room.
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
