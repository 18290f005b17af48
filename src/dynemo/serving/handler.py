"""A worker's request handler: it answers through its local instance, and keeps metrics and log."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import perf_counter

from msgspec import Struct

from dynemo.connection.server import StreamSink
from dynemo.connection.sink import ForwardingBuffer
from dynemo.errors import EngineError, EngineLost, Unavailable
from dynemo.foreign import msgpack_decoder
from dynemo.messages.answer import Delta, Finish
from dynemo.messages.records import Load
from dynemo.metrics import WorkerMetrics
from dynemo.planes.requests.base import OnRequest
from dynemo.serving.local.instance import LocalInstance
from dynemo.trace import trace_id

log = logging.getLogger("dynemo.worker")


class _Head(Struct):
    """The fields of a Request that the log needs; the rest is not decoded."""

    id: str
    traceparent: str = ""


_decode_head = msgpack_decoder(_Head)


class WorkerHandler:
    """The `RequestHandler` of a worker."""

    def __init__(self, local: LocalInstance, metrics: WorkerMetrics) -> None:
        self.local = local
        self.metrics = metrics
        self.failures = 0  #: answers in sequence that the engine failed

    def counted(self, handler: OnRequest) -> OnRequest:
        """The handler, with its refusals counted in the metrics."""

        async def handle(body: bytes) -> None:
            try:
                await handler(body)
            except Exception:
                self.metrics.refused()
                raise

        return handle

    async def answer(self, request: bytes, sink: StreamSink) -> AsyncGenerator[Delta, None]:
        """See `RequestHandler`. The frames that the buffer forwards do not pass through here."""
        head, buffer, began = _decode_head(request), ForwardingBuffer(sink), perf_counter()
        outcome, finish, received = "cancelled", None, 0
        self.metrics.in_flight.inc()
        try:
            async with aclosing(self.local.ask(request, buffer)) as deltas:
                async for delta in deltas:
                    received += len(delta.token_ids) or len(delta.texts)
                    if delta.finish is not None:
                        outcome, finish = "finished", delta.finish
                    yield delta
        except Exception as error:
            outcome = _outcome(error)
            self.failures += isinstance(error, EngineError)
            raise
        finally:
            self.metrics.in_flight.dec()
            if outcome == "finished":
                self.failures = 0
            seconds = perf_counter() - began
            self.metrics.ended(outcome, seconds)
            count = self._count(finish, buffer.sent + received)
            _log(head, outcome, finish, count, seconds)

    async def load(self) -> Load:
        return self.local.load

    def _count(self, finish: Finish | None, seen: int) -> int:
        """The answer's tokens. Without a finish, only the number of deltas is known."""
        if finish is None:
            self.metrics.tokens(0, 0, seen)
            return seen
        self.metrics.tokens(finish.prompt_tokens, finish.cached_tokens, finish.completion_tokens)
        return finish.completion_tokens


def _outcome(error: Exception) -> str:
    match error:
        case EngineLost():
            return "lost"
        case Unavailable():
            return "refused"
        case _:
            return "failed"


def _log(head: _Head, outcome: str, finish: Finish | None, count: int, seconds: float) -> None:
    log.info(
        "answer: %s",
        outcome,
        extra={
            "id": head.id,
            "trace_id": trace_id(head.traceparent) or None,
            "prompt_tokens": finish and finish.prompt_tokens,
            "completion_tokens": count,
            "duration_ms": round(seconds * 1e3, 1),
            "finish": finish and finish.reason,
        },
    )
