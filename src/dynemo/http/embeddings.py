"""`POST /v1/embeddings`."""

import asyncio
import logging
from time import perf_counter

from dynemo.errors import DynemoError
from dynemo.http.asgi import find_headers
from dynemo.http.errors import CLIENT_GONE, ClientGone
from dynemo.http.exchange import Exchange
from dynemo.metrics import NO_MODEL, Metrics
from dynemo.openai.embeddings import read_embeddings, write_embeddings
from dynemo.pipeline import EmbeddingJob, Pipeline
from dynemo.trace import continued, trace_id

_log = logging.getLogger("dynemo.http")


class Embeddings:
    def __init__(self, pipeline: Pipeline, metrics: Metrics) -> None:
        self._pipeline = pipeline
        self._metrics = metrics

    async def __call__(self, exchange: Exchange) -> None:
        traceparent = continued(find_headers(exchange.scope, b"traceparent"))
        began, status = perf_counter(), 500
        job: EmbeddingJob | None = None
        try:
            async with exchange.working():
                asked, inputs = read_embeddings(await exchange.read_body())
                # Many texts, or long ones: in a thread, so that no stream waits for them.
                job = await asyncio.to_thread(
                    self._pipeline.prepare_embeddings, asked.model, inputs, traceparent
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
            status = 200
        except ClientGone:
            status = CLIENT_GONE
            raise
        except DynemoError as error:
            status = error.status
            raise
        finally:
            self._record(exchange, job, traceparent, status, perf_counter() - began)

    def _record(
        self,
        exchange: Exchange,
        job: EmbeddingJob | None,
        traceparent: str,
        status: int,
        seconds: float,
    ) -> None:
        name = NO_MODEL if job is None else job.model.name
        tokens = 0 if job is None else job.prompt_tokens
        self._metrics.ended(name, status, seconds)
        if job is not None:
            self._metrics.of(name).input_tokens.inc(tokens)
        _log.info(
            "embeddings: %d",
            status,
            extra={
                "request_id": exchange.id,
                "trace_id": trace_id(traceparent),
                "model": name,
                "status": status,
                "inputs": 0 if job is None else len(job.requests),
                "prompt_tokens": tokens,
                "duration_ms": round(seconds * 1e3, 1),
            },
        )
