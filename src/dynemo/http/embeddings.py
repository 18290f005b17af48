"""`POST /v1/embeddings`."""

import asyncio
import logging
from time import perf_counter

from dynemo.api.openai.embeddings import read_embeddings, write_embeddings
from dynemo.http.asgi import find_headers
from dynemo.http.exchange import Exchange
from dynemo.http.record import told
from dynemo.metrics import NO_MODEL, Metrics
from dynemo.serving.pipeline import EmbeddingJob, Pipeline
from dynemo.trace import continued, trace_id

_log = logging.getLogger("dynemo.http")


class Embeddings:
    def __init__(self, pipeline: Pipeline, metrics: Metrics) -> None:
        self._pipeline = pipeline
        self._metrics = metrics

    async def __call__(self, exchange: Exchange) -> None:
        traceparent = continued(find_headers(exchange.scope, b"traceparent"))
        record = _Record(self._metrics, exchange.id, traceparent)
        with told(record.end):
            async with exchange.working():
                await self._answer(exchange, record)

    async def _answer(self, exchange: Exchange, record: "_Record") -> None:
        asked, inputs = read_embeddings(await exchange.read_body())
        # Many texts, or long ones: in a thread, so that no stream waits for them.
        job = record.job = await asyncio.to_thread(
            self._pipeline.prepare_embeddings, asked.model, inputs, record.traceparent
        )
        async with exchange.listening():
            vectors = await self._pipeline.embed(job)
            body = write_embeddings(
                job.model.name,
                vectors,
                job.prompt_tokens,
                is_base64=asked.encoding_format == "base64",
            )
            await exchange.reply(body)


class _Record:
    """What is known of one request when it ends: its metrics and its line in the log."""

    def __init__(self, metrics: Metrics, request_id: str, traceparent: str) -> None:
        self.traceparent = traceparent
        self.job: EmbeddingJob | None = None
        self._metrics = metrics
        self._request_id = request_id
        self._began = perf_counter()

    def end(self, status: int) -> None:
        seconds, job = perf_counter() - self._began, self.job
        name = NO_MODEL if job is None else job.model.name
        tokens = 0 if job is None else job.prompt_tokens
        self._metrics.ended(name, status, seconds)
        if job is not None:
            self._metrics.of(name).input_tokens.inc(tokens)
        _log.info(
            "embeddings: %d",
            status,
            extra={
                "request_id": self._request_id,
                "trace_id": trace_id(self.traceparent),
                "model": name,
                "status": status,
                "inputs": 0 if job is None else len(job.requests),
                "prompt_tokens": tokens,
                "duration_ms": round(seconds * 1e3, 1),
            },
        )
