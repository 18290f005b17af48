"""Ingresses and workers with a fake engine in one process, on any request plane."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from dynemo.connection.heartbeat import Beat
from dynemo.connection.server import EngineHandler
from dynemo.messages.answer import Delta, Finish
from dynemo.messages.records import InstanceRecord, Load
from dynemo.messages.request import Request, Sampling
from dynemo.planes.requests.base import RequestPlane, RequestServer
from dynemo.planes.requests.memory import MemoryRequests
from dynemo.planes.requests.nats.client import NatsSettings
from dynemo.planes.requests.nats.plane import nats_requests
from dynemo.planes.requests.tcp import TcpRequests, tcp_request_server
from dynemo.planes.responses.ingresses import IngressConnections, ingress_connections
from dynemo.planes.responses.listen import ResponseListener, listen
from dynemo.planes.responses.memory import MemoryNetwork
from dynemo.serving.remote import RemoteInstance
from support.records import make_record

KINDS = ("memory", "nats", "tcp")
QUICK = Beat(ping=0.1, silence=0.5, idle=0.4)


class FakeEngine:
    """Answers with `max_tokens` ids that count up from the prompt's first id.

    With `hold` it waits after the first id until the stream is closed.
    """

    def __init__(self) -> None:
        self.hold = False
        self.delay = 0.0
        self.running = 0
        self.closed = 0
        self.seen: list[Request] = []

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        first, count = request.token_ids[0], request.max_tokens
        self.running += 1
        self.seen.append(request)
        try:
            for number in range(count - 1):
                yield Delta([first + number])
                await asyncio.sleep(3600 if self.hold else self.delay)
            finish = Finish("length", len(request.token_ids), count)
            yield Delta([first + count - 1], finish=finish)
        finally:
            self.running -= 1
            self.closed += 1

    def load_now(self) -> Load:
        return Load(running=self.running, kv_use=0.5)

    async def load(self) -> Load:
        return self.load_now()


@dataclass
class Ingress:
    responses: ResponseListener
    requests: RequestPlane

    def remote(self, record: InstanceRecord) -> RemoteInstance:
        return RemoteInstance(record, self.requests, self.responses)


@dataclass
class Worker:
    record: InstanceRecord
    ingresses: IngressConnections
    engine: FakeEngine


def make_request(first: int = 7, count: int = 5, prompt_tokens: int = 1) -> Request:
    ids = [first] * prompt_tokens
    return Request(id="r", token_ids=ids, prompt="", max_tokens=count, sampling=Sampling())


@dataclass
class World:
    """Makes ingresses and workers for one kind of request plane.

    The kind `memory` also uses connections in memory.
    """

    kind: str
    nats_url: str = ""
    beat: Beat = field(default_factory=Beat)
    nats: NatsSettings | None = None  #: settings of a server that needs more than its URL
    network: MemoryNetwork = field(default_factory=MemoryNetwork)
    memory: MemoryRequests = field(default_factory=MemoryRequests)

    @asynccontextmanager
    async def ingress(self) -> AsyncIterator[Ingress]:
        if self.kind == "memory":
            async with self.network.listen(self.beat) as responses:
                yield Ingress(responses, self.memory)
            return
        async with listen("127.0.0.1", beat=self.beat) as responses:
            if self.kind == "tcp":
                yield Ingress(responses, TcpRequests(responses))
                return
            async with nats_requests(self._nats) as requests:
                yield Ingress(responses, requests)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        engine, name = FakeEngine(), uuid4().hex
        dial = self.network.dial if self.kind == "memory" else None
        async with (
            ingress_connections(
                name, EngineHandler(engine), beat=self.beat, dial=dial
            ) as ingresses,
            self._request_server(ingresses) as server,
        ):
            record = make_record(name, server)
            async with server.serve(record, ingresses.accept, engine.load_now):
                yield Worker(record, ingresses, engine)

    @property
    def _nats(self) -> NatsSettings:
        return self.nats or NatsSettings((self.nats_url,))

    @asynccontextmanager
    async def _request_server(self, ingresses: IngressConnections) -> AsyncIterator[RequestServer]:
        if self.kind == "memory":
            yield self.memory
        elif self.kind == "tcp":
            async with tcp_request_server(ingresses) as tcp:
                yield tcp
        else:
            async with nats_requests(self._nats) as nats:
                yield nats


async def collect(deltas: AsyncGenerator[Delta, None]) -> list[int]:
    return [token_id async for delta in deltas for token_id in delta.token_ids]
