"""`POST /v1/chat/completions`."""

import asyncio
import time
from contextlib import aclosing

from dynemo.api.openai.chunks import ChunkWriter, CompletionWriter
from dynemo.api.openai.convert import to_ask, wants_usage
from dynemo.api.openai.decode import decode_chat
from dynemo.api.openai.types import ChatRequest
from dynemo.http.asgi import find_headers
from dynemo.http.exchange import Exchange
from dynemo.http.record import RequestRecord, told
from dynemo.metrics import Metrics
from dynemo.serving.pipeline import Job, Pipeline
from dynemo.trace import continued

#: Bytes of a body from which on its rendering and tokenizing (some 0.3 us a byte) would hold up the
#: streams of others for longer than a thread costs.
_LONG_BODY = 32 * 1024


class Chat:
    def __init__(self, pipeline: Pipeline, metrics: Metrics) -> None:
        self._pipeline = pipeline
        self._metrics = metrics

    async def __call__(self, exchange: Exchange) -> None:
        traceparent = continued(find_headers(exchange.scope, b"traceparent"))
        record = RequestRecord(self._metrics, exchange.id, traceparent)
        with told(record.end):
            async with exchange.working():
                await self._answer(exchange, record)

    async def _answer(self, exchange: Exchange, record: RequestRecord) -> None:
        body = await exchange.read_body()
        if len(body) > _LONG_BODY:
            asked, job = await asyncio.to_thread(self._accept, body, record.traceparent)
        else:
            asked, job = self._accept(body, record.traceparent)
        is_stream, include_usage = asked.stream, wants_usage(asked)
        del body, asked  # a long prompt's, and the answer may take long
        record.accept(job)
        async with exchange.listening():
            if is_stream:
                await self._stream(exchange, job, record, include_usage=include_usage)
            else:
                await self._complete(exchange, job, record)

    def _accept(self, body: bytes, traceparent: str) -> tuple[ChatRequest, Job]:
        asked = decode_chat(body)
        return asked, self._pipeline.prepare(to_ask(asked), traceparent)

    async def _stream(
        self, exchange: Exchange, job: Job, record: RequestRecord, *, include_usage: bool
    ) -> None:
        writer = ChunkWriter(
            id=f"chatcmpl-{job.id}",
            created=int(time.time()),
            model=job.model.name,
            n=job.n,
            include_usage=include_usage,
        )
        # The headers wait for the first piece: until then an error still has its own status.
        events = writer.opening()
        async with aclosing(self._pipeline.run(job)) as pieces:
            async for piece in pieces:
                record.piece(piece)
                events += writer.piece(piece)
                # What ends the last choice leaves in one write with what ends the stream.
                if events and not record.tally.is_complete:
                    await exchange.write(events)
                    events = b""
        await exchange.end(events + writer.closing(record.tally.usage()))

    async def _complete(self, exchange: Exchange, job: Job, record: RequestRecord) -> None:
        writer = CompletionWriter(
            id=f"chatcmpl-{job.id}", created=int(time.time()), model=job.model.name, n=job.n
        )
        async with aclosing(self._pipeline.run(job)) as pieces:
            async for piece in pieces:
                record.piece(piece)
                writer.piece(piece)
        await exchange.reply(writer.body(record.tally))
