"""What comes back from mistral.rs: chunks that threads read, as deltas in the loop."""

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from dynemo.engines.json_schema import GUIDE_FIELD
from dynemo.errors import DynemoError, EngineError, RequestError
from dynemo.messages.answer import Delta, Finish, FinishReason
from dynemo.messages.request import Request

_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class Wakes:
    """Wakes the streams of many threads, once a turn of the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: deque[ChunkStream] = deque()
        self._is_called = False

    def soon(self, stream: "ChunkStream") -> None:
        self._due.append(stream)
        if not self._is_called:
            self._is_called = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._is_called = False  # before the first is taken: a later one calls again
        while self._due:
            self._due.popleft().has_more.set()


class ChunkStream:
    """From a thread that reads to the loop."""

    def __init__(self, wakes: Wakes) -> None:
        self._wakes = wakes
        self._came: deque[Any] = deque()
        self.has_more = asyncio.Event()
        self.is_closed = False
        self.ends: frozenset[bytes] = frozenset()  #: tokens to end at; set before the first chunk

    def put(self, chunk: Any) -> None:
        self._came.append(chunk)
        self._wakes.soon(self)

    async def take(self) -> list[Any]:
        """What has come since the last time, at least one."""
        while not self._came:
            await self.has_more.wait()
            self.has_more.clear()
        return [self._came.popleft() for _ in range(len(self._came))]


class Sequence:
    """The chunks of one sequence as deltas.

    A chunk is one token, and has its text once its last character is whole; a special token has
    none, not even a chunk, and is known from the count at the end.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._count = 0
        self._start: bytes | None = b""  # until there is a text

    def feed(self, chunks: Iterable[Any], ends: frozenset[bytes]) -> Delta:
        """Raises EngineError, or RequestError where the guide is refused."""
        texts: list[str] = []
        for chunk in chunks:
            if isinstance(chunk, BaseException):
                raise self._problem(chunk)
            choice = chunk.choices[0]
            token = None if choice.logprobs is None else bytes(choice.logprobs.bytes or b"")
            texts.append(self._text(choice.delta.content or "", token))
            self._count += 1
            if token is not None and token in ends:
                texts[-1] = ""
                prompt_tokens = len(self._request.token_ids)
                return Delta(texts=texts, finish=Finish("stop", prompt_tokens, self._count))
            if choice.finish_reason is not None:
                return self._end(choice.finish_reason, texts, chunk.usage)
        return Delta(texts=texts)

    def _text(self, content: str, token: bytes | None) -> str:
        """The engine cuts the whitespace before the first word; the token's bytes have it."""
        if self._start is None or token is None:
            return content
        self._start += token
        whole = self._start.decode(errors="ignore")
        if whole:
            self._start = None
        return whole if whole.lstrip() == content else content

    def _end(self, reason: str, texts: list[str], usage: Any) -> Delta:
        if reason not in _REASONS:
            raise EngineError(f"mistral.rs ended the answer with {reason!r}.")
        silent = [""] * (usage.completion_tokens - self._count)
        details = usage.prompt_tokens_details
        cached = details.cached_tokens if details is not None else 0
        finish = Finish(_REASONS[reason], usage.prompt_tokens, usage.completion_tokens, cached or 0)
        return Delta(texts=[*silent, *texts], finish=finish)

    def _problem(self, error: BaseException) -> DynemoError:
        said = f"mistral.rs: {words_of(error)}"
        if self._request.guide is not None and self._count == 0:  # all else was checked before
            return RequestError(said, param=GUIDE_FIELD)
        return EngineError(said)


def words_of(error: BaseException) -> str:
    """Without the backtrace, which is appended to some, and without a full stop."""
    lines = str(error).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
