"""A worker counts the requests that it refuses."""

import asyncio
import logging

import pytest
from msgspec import msgpack

from dynemo.connection.framed import FramedConnection
from dynemo.connection.server import StreamSink
from dynemo.errors import Unavailable
from dynemo.messages.request import Request, Sampling
from dynemo.metrics import WorkerMetrics
from dynemo.serving.handler import WorkerHandler
from dynemo.serving.local.instance import LocalInstance


def exposed(metrics: WorkerMetrics) -> str:
    return metrics.expose("")[0].decode()


def test_a_refused_request_is_counted() -> None:
    async def busy(_: bytes) -> None:
        raise Unavailable("busy")

    async def body() -> str:
        metrics = WorkerMetrics("m")
        with pytest.raises(Unavailable, match="busy"):
            await WorkerHandler(LocalInstance(), metrics).counted(busy)(b"")
        return exposed(metrics)

    text = asyncio.run(body())
    assert 'dynemo_worker_requests_total{model="m",outcome="refused"} 1.0' in text


def test_an_engine_that_is_not_there_refuses(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dynemo.worker")
    asked = Request(id="r", token_ids=[1], prompt="", max_tokens=1, sampling=Sampling())

    async def body() -> str:
        metrics = WorkerMetrics("m")
        sink = StreamSink(FramedConnection(lambda _: None, lambda _: None), 1)
        answer = WorkerHandler(LocalInstance(), metrics).answer(msgpack.encode(asked), sink)
        with pytest.raises(Unavailable):
            await anext(answer)
        return exposed(metrics)

    text = asyncio.run(body())
    assert 'dynemo_worker_requests_total{model="m",outcome="refused"} 1.0' in text
    assert 'dynemo_worker_requests_in_flight{model="m"} 0.0' in text
    (line,) = caplog.records
    assert line.getMessage() == "answer: refused"
    assert (line.__dict__["id"], line.__dict__["trace_id"]) == ("r", None)
