"""What is known of one chat request when it ends: its metrics and its line in the log."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from dynemo.api.openai.chunks import UsageCounter
from dynemo.errors import DynemoError
from dynemo.http.errors import CLIENT_GONE, ClientGone
from dynemo.messages import Piece
from dynemo.metrics import NO_MODEL, Metrics, ModelMetrics
from dynemo.serving.pipeline import Job
from dynemo.trace import trace_id

_log = logging.getLogger("dynemo.http")


@contextmanager
def told(end: Callable[[int], None]) -> Iterator[None]:
    """Calls `end` with the HTTP status that what is done within comes to."""
    status = 500
    try:
        yield
        status = 200
    except ClientGone:
        status = CLIENT_GONE
        raise
    except DynemoError as error:
        status = error.status
        raise
    finally:
        end(status)


class RequestRecord:
    """Begins when a request arrives. `accept`, then a `piece` each, then `end` once."""

    def __init__(self, metrics: Metrics, request_id: str, traceparent: str) -> None:
        self.traceparent = traceparent
        self._metrics = metrics
        self._request_id = request_id
        self._began = perf_counter()
        self._job: Job | None = None
        self._model: ModelMetrics | None = None
        self._is_queued = False
        self._ttft: float | None = None
        self._last: list[float] = []
        self.tally = UsageCounter(0, 0)

    def accept(self, job: Job) -> None:
        self._job = job
        self.tally = UsageCounter(job.prompt_tokens, job.n)
        self._last = [0.0] * job.n
        self._model = model = self._metrics.of(job.model.name)
        model.in_flight.inc()
        model.queued.inc()
        self._is_queued = True
        model.input_tokens.inc(job.prompt_tokens)

    def piece(self, piece: Piece) -> None:
        model = self._model
        assert model is not None
        tokens = self.tally.add(piece)
        if tokens <= 0:
            return
        now = perf_counter()
        model.output_tokens.inc(tokens)
        last = self._last[piece.index]
        self._last[piece.index] = now
        if last:
            model.itl.observe((now - last) / tokens)
        elif self._is_queued:
            self._leave_queue(model)
            self._ttft = now - self._began
            model.ttft.observe(self._ttft)

    def end(self, status: int) -> None:
        duration = perf_counter() - self._began
        job, model = self._job, self._model
        if model is not None:
            model.in_flight.dec()
            model.cached_tokens.inc(self.tally.cached_tokens)
            self._leave_queue(model)
        self._metrics.ended(NO_MODEL if job is None else job.model.name, status, duration)
        _log.info(
            "chat completion: %d",
            status,
            extra={
                "id": None if job is None else f"chatcmpl-{job.id}",
                "request_id": self._request_id,
                "trace_id": trace_id(self.traceparent),
                "model": None if job is None else job.model.name,
                "status": status,
                "prompt_tokens": self.tally.prompt_tokens,
                "completion_tokens": self.tally.completion_tokens,
                "ttft_ms": None if self._ttft is None else round(self._ttft * 1e3, 1),
                "duration_ms": round(duration * 1e3, 1),
                "finish": [f and f.reason for f in self.tally.finishes],
            },
        )

    def _leave_queue(self, model: ModelMetrics) -> None:
        if self._is_queued:
            self._is_queued = False
            model.queued.dec()
