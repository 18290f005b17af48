"""The metrics and the log line of one request."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

from dynemo.answer.usage import UsageCounter
from dynemo.api.dialect import Operation
from dynemo.errors import DeadlineExceeded, DynemoError, Unavailable
from dynemo.http.errors import CLIENT_GONE, ClientGone
from dynemo.http.exchange import Exchange
from dynemo.messages.answer import Piece
from dynemo.metrics import NO_MODEL, Metrics, ModelMetrics
from dynemo.serving.pipeline import Job
from dynemo.serving.room import Place
from dynemo.trace import trace_id

_log = logging.getLogger("dynemo.http")


@contextmanager
def report_status(end: Callable[[int, DynemoError | None], None]) -> Iterator[None]:
    """Calls `end` with the HTTP status of the work within, and its error."""
    status, problem = 500, None
    try:
        yield
        status = 200
    except ClientGone:
        status = CLIENT_GONE
        raise
    except DynemoError as error:
        status, problem = error.status, error
        raise
    finally:
        end(status, problem)


class RequestRecord:
    """Begins when a request arrives. `accept`, then `add` for each batch, then `end` once."""

    __slots__ = (
        "_began",
        "_has_counted_cached",
        "_is_queued",
        "_job",
        "_last",
        "_metrics",
        "_model",
        "_operation",
        "_request_id",
        "_ttft",
        "client",
        "counter",
        "place",
        "traceparent",
    )

    def __init__(
        self,
        metrics: Metrics,
        operation: Operation,
        exchange: Exchange,
        traceparent: str,
        place: Place,
    ) -> None:
        self.traceparent = traceparent
        self.client = exchange.client
        self.place = place
        self._metrics = metrics
        self._operation = operation
        self._request_id = exchange.id
        self._began = perf_counter()
        self._job: Job | None = None
        self._model: ModelMetrics | None = None
        self._is_queued = False
        self._ttft: float | None = None
        self._last: list[float] = []
        self._has_counted_cached = False
        self.counter = UsageCounter(0, 0)

    def accept(self, job: Job) -> None:
        self._job = job
        self.counter = UsageCounter(job.prompt_tokens, job.choices)
        self._last = [0.0] * job.choices
        self._model = model = self._metrics.of(job.model.name)
        model.in_flight.inc()
        model.queued.inc()
        self._is_queued = True
        model.input_tokens.inc(job.prompt_tokens)
        self.client.spend(job.prompt_tokens)

    def add(self, pieces: Sequence[Piece]) -> None:
        """Counts what one choice has gained."""
        tokens = 0
        for piece in pieces:
            tokens += self.counter.add(piece)
        model = self._model
        assert model is not None
        if self.counter.is_complete:  # before the client gets the end, and may read the metrics
            self._count_cached(model)
        if tokens <= 0:
            return
        now = perf_counter()
        model.output_tokens.inc(tokens)
        index = pieces[0].index
        last = self._last[index]
        self._last[index] = now
        if last:
            model.itl.observe((now - last) / tokens)
        elif self._is_queued:
            self._leave_queue(model)
            self._ttft = now - self._began
            model.ttft.observe(self._ttft)

    def end(self, status: int, problem: DynemoError | None) -> None:
        duration = perf_counter() - self._began
        job, model, counter = self._job, self._model, self.counter
        waited = self.place.waited
        name = NO_MODEL if job is None else job.model.name
        if isinstance(problem, Unavailable | DeadlineExceeded):
            name = self.place.model or name
            self._metrics.rejected(name, problem.detail or problem.code)
        if model is not None:
            if waited is not None:
                model.wait.observe(waited)
            model.in_flight.dec()
            self._count_cached(model)
            self._leave_queue(model)
        self._metrics.ended(name, status, duration)
        self.client.spend(counter.completion_tokens)
        if self.client.has_key:
            tokens = counter.prompt_tokens, counter.cached_tokens, counter.completion_tokens
            self._metrics.count_key(self.client.name, name, *tokens)
        # Of a thousand prompts to embed, each has a finish that says nothing.
        is_chat = job is None or job.prepared.task == "chat"
        finishes = [finish and finish.reason for finish in counter.finishes] if is_chat else None
        _log.info(
            "%s: %d",
            self._operation.name,
            status,
            extra={
                "id": None if job is None else f"{self._operation.id_prefix}{job.id}",
                "request_id": self._request_id,
                "trace_id": trace_id(self.traceparent),
                "key": self.client.name if self.client.has_key else None,
                "model": None if job is None else name,
                "status": status,
                "prompt_tokens": counter.prompt_tokens,
                "completion_tokens": counter.completion_tokens if is_chat else None,
                "ttft_ms": None if self._ttft is None else round(self._ttft * 1e3, 1),
                "queued_ms": None if waited is None else round(waited * 1e3, 1),
                "duration_ms": round(duration * 1e3, 1),
                "inputs": None if is_chat else len(counter.finishes),
                "finish": finishes,
            },
        )

    def _count_cached(self, model: ModelMetrics) -> None:
        if not self._has_counted_cached:
            self._has_counted_cached = True
            model.cached_tokens.inc(self.counter.cached_tokens)

    def _leave_queue(self, model: ModelMetrics) -> None:
        if self._is_queued:
            self._is_queued = False
            model.queued.dec()
