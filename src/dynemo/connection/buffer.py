"""What has arrived for one stream, between the connection and the reader."""

import asyncio
import time
from collections.abc import Callable

from msgspec import msgpack

from dynemo.errors import DynemoError, SlowReader
from dynemo.messages.answer import Delta

#: What one stream's reader may leave unread, in bytes that it takes here and in seconds.
MAX_UNREAD = 1024 * 1024
MAX_STALL = 30.0
#: What a token takes besides its bytes in a frame: a pointer, and a number or a text.
_TOKEN_BYTES = 40

#: Cancels the reader's task with this error. A reader that has fallen behind waits for a client
#: that does not read, and would not look at its buffer for a long time.
CancelReader = Callable[[DynemoError], None]

_decode_delta = msgpack.Decoder(Delta).decode


class StreamBuffer:
    """What has arrived for one stream and is not taken yet; taken all at once, as one delta."""

    __slots__ = ("_cancel_reader", "_error", "_held", "_since", "_unread", "_waiter")

    def __init__(self, cancel_reader: CancelReader | None = None) -> None:
        self._held: Delta | None = None
        self._unread = 0
        self._since = 0.0
        self._error: DynemoError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._cancel_reader = cancel_reader

    def data(self, bodies: list[bytes]) -> bool:
        """Encoded deltas have come, in this order. See `put`; raises DecodeError."""
        return self.put(decoded(bodies), sum(map(len, bodies)))

    def put(self, delta: Delta, size: int) -> bool:
        """Takes over a delta that came in `size` bytes.

        False when the reader has fallen behind its bound; the stream is then broken.
        """
        now = time.monotonic()
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
        """Ends the stream after what has come so far."""
        self._error = self._error or error
        self._wake()

    async def take(self) -> Delta:
        """All that has come, as one. Raises what ended the stream, once nothing is left."""
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


def decoded(bodies: list[bytes]) -> Delta:
    """Encoded deltas as one. Raises DecodeError."""
    if len(bodies) == 1:
        return _decode_delta(bodies[0])
    deltas = [_decode_delta(body) for body in bodies]
    ids = [token_id for delta in deltas for token_id in delta.token_ids]
    texts = [text for delta in deltas for text in delta.texts]
    cached = max([delta.cached_tokens for delta in deltas])
    return Delta(ids, texts, deltas[-1].finish, cached, deltas[-1].embedding)


def _joined(held: Delta, delta: Delta) -> Delta:
    """One delta of two; `held` is used up. At once, as many deltas take five times their ids."""
    held.token_ids.extend(delta.token_ids)
    held.texts.extend(delta.texts)
    if delta.finish is None and not delta.cached_tokens:
        return held
    cached = max(held.cached_tokens, delta.cached_tokens)
    return Delta(held.token_ids, held.texts, delta.finish, cached, delta.embedding)
