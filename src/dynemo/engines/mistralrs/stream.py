"""Passes the chunks of mistral.rs from threads to the event loop, and converts them to deltas."""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from dynemo.engines.guides.verdict import GUIDE_FIELD
from dynemo.errors import DynemoError, EngineError, RequestError
from dynemo.messages.answer import Delta, Finish, FinishReason, Scores
from dynemo.messages.request import Request
from dynemo.messages.scores import UNKNOWN_ID, pack_score

#: So many of the likeliest tokens are asked for with each token, because these alone have ids.
MOST_LIKELIEST = 20
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class StreamWaker:
    """Wakes the streams of many threads, at most once per iteration of the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: deque[ChunkStream] = deque()
        self._is_scheduled = False

    def wake_soon(self, stream: "ChunkStream") -> None:
        self._due.append(stream)
        if not self._is_scheduled:
            self._is_scheduled = True
            with suppress(RuntimeError):  # the event loop has ended
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._is_scheduled = (
            False  # reset first: a stream that is added later schedules another call
        )
        while self._due:
            self._due.popleft().has_more.set()


class ChunkStream:
    """Passes the chunks of one sequence from its thread to the event loop."""

    def __init__(self, waker: StreamWaker) -> None:
        self._waker = waker
        self._chunks: deque[Any] = deque()
        self.has_more = asyncio.Event()
        self.is_closed = False
        #: Tokens to end at, and their ids. Set before the first chunk.
        self.ends: dict[bytes, int] = {}

    def put(self, chunk: Any) -> None:
        self._chunks.append(chunk)
        self._waker.wake_soon(self)

    async def take(self) -> list[Any]:
        """Returns all chunks since the last call. Waits for at least one."""
        while not self._chunks:
            await self.has_more.wait()
            self.has_more.clear()
        return [self._chunks.popleft() for _ in range(len(self._chunks))]


class Sequence:
    """Converts the chunks of one sequence to deltas.

    A chunk is one token. Its text appears once its last character is complete. A stop token has no
    chunk at all; only the count at the end includes it. `control` is that of `control_spellings`.
    """

    def __init__(self, request: Request, control: Mapping[str, str]) -> None:
        self._request = request
        self._control = control
        self._shown = frozenset(request.shown.values())
        self._count = 0
        self._start: bytes | None = b""  # None once there is text

    def feed(self, chunks: Iterable[Any], ends: Mapping[bytes, int]) -> Delta:
        """Returns the next delta.

        Raises EngineError, or RequestError if the engine refuses the guide.
        """
        texts: list[str] = []
        scores = None if self._request.logprobs is None else Scores([])
        for chunk in chunks:
            if isinstance(chunk, BaseException):
                raise self._problem(chunk)
            choice = chunk.choices[0]
            token = None if choice.logprobs is None else bytes(choice.logprobs.bytes or b"")
            texts.append(self._text(choice.delta.content or "", token))
            self._count += 1
            stop_id = None if token is None else ends.get(token)
            is_stop = stop_id is not None
            if is_stop and not (self._request.include_stop or texts[-1] in self._shown):
                texts[-1] = ""
            if scores is not None:
                is_hidden = is_stop and not texts[-1]
                scores.tokens.append(b"" if is_hidden else self._score(choice.logprobs))
            if stop_id is not None:
                return Delta(texts=texts, finish=self._stopped(stop_id), scores=scores)
            if choice.finish_reason is not None:
                return self._end(choice.finish_reason, texts, chunk.usage, scores)
        return Delta(texts=texts, scores=scores)

    def _stopped(self, stop_id: int) -> Finish:
        met = stop_id if stop_id in self._request.client_stop_ids else None
        return Finish("stop", len(self._request.token_ids), self._count, matched=met)

    def _score(self, given: Any) -> bytes:
        """Returns a token's score. Only the likeliest tokens have an id."""
        if given is None:
            return b""
        text = bytes(given.bytes or b"").decode(errors="replace")
        if text in self._control and self._control[text] not in self._shown:
            return b""
        likeliest = given.top_logprobs
        chosen = next(
            (one for one in likeliest if (one.logprob, one.bytes) == (given.logprob, text)), None
        )
        token_id = UNKNOWN_ID if chosen is None else chosen.token
        top = [(one.token, one.logprob) for one in likeliest[: self._request.logprobs]]
        return pack_score(token_id, given.logprob, top)

    def _text(self, content: str, token: bytes | None) -> str:
        """Returns a token's text, without a control token that the request does not show.

        The engine strips white space before the first word; the bytes have it.
        """
        if token is None:
            return content
        given = token.decode(errors="ignore")
        if given in self._control:  # its text may follow bytes that never became a character
            self._start = None
            spelling = self._control[given]
            before = content[: -len(given)]
            return before + spelling if spelling in self._shown else before
        if self._start is None:
            return content
        self._start += token
        whole = self._start.decode(errors="ignore")
        if whole:
            self._start = None
        return whole if whole.lstrip() == content else content

    def _end(self, reason: str, texts: list[str], usage: Any, scores: Scores | None) -> Delta:
        if reason not in _REASONS:
            raise EngineError(f'mistral.rs ended the answer with the reason "{reason}".')
        silent = [""] * (usage.completion_tokens - self._count)
        details = usage.prompt_tokens_details
        cached = details.cached_tokens if details is not None else 0
        finish = Finish(_REASONS[reason], usage.prompt_tokens, usage.completion_tokens, cached or 0)
        if scores is not None:
            scores = Scores([*[b""] * len(silent), *scores.tokens])
        return Delta(texts=[*silent, *texts], finish=finish, scores=scores)

    def _problem(self, error: BaseException) -> DynemoError:
        message = f"mistral.rs: {reason_of(error)}."
        if (
            self._request.guide is not None and self._count == 0
        ):  # everything else was checked before
            return RequestError(message, param=GUIDE_FIELD)
        return EngineError(message)


def reason_of(error: BaseException) -> str:
    """Returns an error's first line, without a full stop. Some errors continue with a backtrace."""
    lines = str(error).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
