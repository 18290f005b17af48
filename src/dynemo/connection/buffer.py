"""A stream's buffer, between its connection and its reader."""

import asyncio
import time
from collections.abc import Callable

from dynemo.errors import DynemoError, SlowReader
from dynemo.messages.answer import Delta
from dynemo.wire.deltas import decode_deltas, joined_scores

#: How far a stream's reader may fall behind, in bytes held here and in seconds.
MAX_UNREAD = 1024 * 1024
MAX_STALL = 30.0
#: Memory that a token takes besides its bytes in a frame: a pointer, and a number or a text.
_TOKEN_BYTES = 40

#: Cancels the reader's task with this error. A reader that falls behind waits for a client that
#: does not read, and would not look at its buffer for a long time.
CancelReader = Callable[[DynemoError], None]


class StreamBuffer:
    """The deltas that have arrived for one stream and are not taken yet. `take` joins them."""

    __slots__ = ("_cancel_reader", "_error", "_held", "_since", "_unread", "_waiter", "fed_at")

    def __init__(self, cancel_reader: CancelReader | None = None) -> None:
        self.fed_at = 0.0  #: when a delta last arrived, on the clock of `time.monotonic`
        self._held: Delta | None = None
        self._unread = 0
        self._since = 0.0
        self._error: DynemoError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._cancel_reader = cancel_reader

    def data(self, bodies: list[bytes]) -> bool:
        """Adds the bodies of DATA frames, in order. See `put`; raises DecodeError."""
        return self.put(decode_deltas(bodies), sum(map(len, bodies)))

    def put(self, delta: Delta, size: int) -> bool:
        """Adds a delta that arrived in `size` bytes. The buffer owns it from now on.

        False if the reader has fallen behind its bound; the stream has then failed.
        """
        now = self.fed_at = time.monotonic()
        if self._held is None:
            self._held, self._since = delta, now
        else:
            self._held = _joined(self._held, delta)
        self._unread += size + _TOKEN_BYTES * (len(delta.token_ids) + len(delta.texts))
        if self._unread > MAX_UNREAD or now - self._since > MAX_STALL:
            error = SlowReader("The reader of this answer fell too far behind; it was cancelled.")
            self.fail(error)
            if self._cancel_reader is not None:
                self._cancel_reader(error)
            return False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return True

    def fail(self, error: DynemoError) -> None:
        """Ends the stream with an error, after the deltas that have arrived."""
        self._error = self._error or error
        self._wake()

    async def take(self) -> Delta:
        """All that has arrived, as one delta. After that, raises what ended the stream."""
        if self._held is None:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
            if self._held is None:
                assert self._error is not None
                raise self._error
        held, self._held, self._unread = self._held, None, 0
        return held

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _joined(held: Delta, delta: Delta) -> Delta:
    """One delta of two; `held` is used up. Two separate deltas take five times the memory."""
    held.token_ids.extend(delta.token_ids)
    held.texts.extend(delta.texts)
    if delta.finish is None and not delta.cached_tokens and delta.scores is None:
        return held
    cached = max(held.cached_tokens, delta.cached_tokens)
    scores = joined_scores(held.scores, delta.scores)
    return Delta(held.token_ids, held.texts, delta.finish, cached, delta.embedding, scores)
