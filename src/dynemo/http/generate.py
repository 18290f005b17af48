"""The one endpoint that models answer: it serves every operation of every dialect."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import aclosing, suppress
from functools import partial

from dynemo.api.dialect import AnswerHead, Call, Operation
from dynemo.errors import DynemoError
from dynemo.http.asgi import find_headers
from dynemo.http.deadline import exceeded, read_timeout
from dynemo.http.exchange import Exchange
from dynemo.http.record import RequestRecord, report_status
from dynemo.limits import LONG_BODIES
from dynemo.metrics import Metrics
from dynemo.prompt.errors import RenderTooLong
from dynemo.prompt.render import Render, render_prompt
from dynemo.serving.pipeline import Job, Pipeline, salted
from dynemo.serving.rendering import render_apart
from dynemo.serving.room import Place
from dynemo.serving.turns import Turns
from dynemo.trace import continue_trace

#: Bytes of a body above which a thread renders and tokenizes it. At some 0.3 us a byte it would
#: otherwise delay the streams of others for longer than a thread costs.
_LONG_BODY = 32 * 1024


class Generate:
    def __init__(self, operation: Operation, pipeline: Pipeline, metrics: Metrics) -> None:
        self._operation = operation
        self._pipeline = pipeline
        self._metrics = metrics
        self._reading = Turns(LONG_BODIES)  # of long bodies

    async def __call__(self, exchange: Exchange) -> None:
        traceparent = continue_trace(find_headers(exchange.scope, b"traceparent"))
        place = Place(exchange.client.name)
        record = RequestRecord(self._metrics, self._operation, exchange, traceparent, place)
        with report_status(record.end), exchange.client.asking():
            seconds = read_timeout(exchange.scope)
            async with exchange.working():
                if seconds is None:
                    await self._answer(exchange, record, place)
                    return
                loop = asyncio.get_running_loop()
                timer = loop.call_later(seconds, exchange.cancel, exceeded(seconds))
                try:
                    place.deadline = timer.when()
                    await self._answer(exchange, record, place)
                finally:
                    timer.cancel()

    async def _answer(self, exchange: Exchange, record: RequestRecord, place: Place) -> None:
        body = await exchange.read_body()
        async with exchange.listening():
            self._pipeline.check_room(place, allowed=record.client.models)
            call, job = await self._read(body, record)
            is_stream, make_writer, fields = call.is_stream, call.writer, call.fields
            del body, call  # a long prompt's, and the answer may take long
            exchange.release_body()
            record.accept(job)
            now, name = int(time.time()), job.model.name
            head = AnswerHead(job.id, now, name, job.choices, job.prompt_tokens)
            writer = make_writer(head)
            # The headers wait for the first piece: until then an error still has its own status.
            data = writer.open()
            try:
                async with aclosing(self._pipeline.run(job, exchange.cancel, place)) as batches:
                    async for pieces in batches:
                        record.add(pieces)
                        data += writer.write(pieces)
                        # What ends the last choice leaves in one write with what ends the stream.
                        if data and not record.counter.is_complete:
                            await exchange.write(data)
                            data = b""
            except DynemoError as error:
                self._name_field(error, fields)
                raise
            data += writer.close(record.counter.usage())
            await (exchange.end if is_stream else exchange.reply)(data)

    async def _read(self, body: bytes, record: RequestRecord) -> tuple[Call, Job]:
        """Reads a body and prepares its answer, without holding up the event loop.

        A call takes up to 25 times the memory of its body. So whatever waits here, waits as bytes.
        """
        work = partial(self._read_now, body, record)
        client = record.client.name
        with suppress(RenderTooLong):  # which holds the call, until this block ends
            if len(body) <= _LONG_BODY:
                return work()
            return await self._reading.in_thread(client, work)
        return await self._pipeline.rendering.in_thread(client, partial(work, render_apart))

    def _read_now(
        self, body: bytes, record: RequestRecord, render: Render = render_prompt
    ) -> tuple[Call, Job]:
        client, pipeline = record.client, self._pipeline
        call = self._operation.read(body)
        pipeline.check_room(record.place, call.ask.model, allowed=client.models)
        try:
            job = pipeline.prepare(
                call.ask, record.traceparent, allowed=client.models, render=render
            )
        except DynemoError as error:
            self._name_field(error, call.fields)
            raise
        return call, salted(job, client.cache_salt)

    def _name_field(self, error: DynemoError, fields: Mapping[str, str]) -> None:
        """Replaces the name of a field of `Ask` by the name that the client knows.

        `fields` are those of the call.
        """
        if (name := error.param) is not None:
            error.param = fields.get(name) or self._operation.fields.get(name, name)
