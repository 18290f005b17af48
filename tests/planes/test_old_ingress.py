"""A recorded ingress of protocol 1 with a worker of this release."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from msgspec import convert, structs

from dynemo import errors
from dynemo.connection.server import EngineHandler
from dynemo.errors import DynemoError
from dynemo.messages.answer import Delta
from dynemo.messages.records import Load
from dynemo.messages.request import Request
from dynemo.planes.requests.base import RequestServer
from dynemo.planes.requests.nats.client import NatsSettings
from dynemo.planes.requests.nats.plane import nats_requests
from dynemo.planes.requests.tcp import TcpRequestServer, tcp_request_server
from dynemo.planes.responses.ingresses import IngressConnections, ingress_connections
from dynemo.wire import versions
from dynemo.wire.versions import VersionRange
from support import protocol_1
from support.old_ingress import OldIngress
from support.old_worker import recorded_request
from support.recorded_servers import OVER_NATS, OVER_TCP, RecordedServers
from support.recording import Recording, answers, load
from support.records import make_record
from support.waiting import until


def _error(error: protocol_1.DynemoError) -> DynemoError:
    kind = getattr(errors, type(error).__name__)
    found: DynemoError = kind(str(error))
    found.param = error.param
    return found


class ScriptedEngine:
    """Sends the items that `give` adds to each stream. Streams start in the recorded order."""

    def __init__(self, streams: list[int]) -> None:
        self.seen: dict[int, Request] = {}
        self.running = 0
        self.load_now = Load()
        self.scripts: dict[int, asyncio.Queue[Delta | DynemoError]] = {
            stream: asyncio.Queue() for stream in streams
        }
        self._next = deque(streams)

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        stream = self._next.popleft()
        self.seen[stream] = request
        self.running += 1
        try:
            while True:
                item = await self.scripts[stream].get()
                if isinstance(item, DynemoError):
                    raise item
                yield item
                if item.finish is not None:
                    return
        finally:
            self.running -= 1

    async def load(self) -> Load:
        return self.load_now


class Driver:
    """The workers of a recording, which share one engine."""

    def __init__(self, recording: Recording) -> None:
        accepted = [s for s, a in answers(recording).items() if not _is_refused(recording, s)]
        self.engine = ScriptedEngine(accepted)
        self.ingresses: dict[str, IngressConnections] = {}
        self.exits: dict[str, AsyncExitStack] = {}
        self._finishing: dict[str, asyncio.Task[int]] = {}

    def expect(self, refusal: protocol_1.DynemoError | None) -> None:
        text = str(refusal or "")
        for ingresses in self.ingresses.values():
            ingresses.max_streams = 0 if "is busy" in text else 4096
            ingresses.admit = _refusing(refusal) if "takes no requests" in text else lambda: None

    def give(self, stream: int, item: "protocol_1.Delta | protocol_1.DynemoError") -> None:
        if isinstance(item, protocol_1.DynemoError):
            self.engine.scripts[stream].put_nowait(_error(item))
            return
        names = ("token_ids", "texts", "finish", "cached_tokens", "embedding")
        values = [_plain(getattr(item, name)) for name in names]
        self.engine.scripts[stream].put_nowait(convert(values, Delta))

    def set_load(self, load: protocol_1.Load) -> None:
        self.engine.load_now = Load(load.running, load.waiting, load.kv_use)

    def drain(self, instance: str) -> None:
        self._finishing[instance] = asyncio.create_task(self.ingresses[instance].finish(60))

    def hand_back(self, instance: str) -> None:
        self._finishing[instance].cancel()

    async def close(self, instance: str) -> None:
        await self.exits[instance].aclose()


def _plain(value: Any) -> Any:
    return list(structs.astuple(value)) if isinstance(value, protocol_1.Finish) else value


def _refusing(refusal: protocol_1.DynemoError | None) -> Any:
    def admit() -> None:
        assert refusal is not None
        raise _error(refusal)

    return admit


def _is_refused(recording: Recording, stream: int) -> bool:
    """Tells whether the worker refused the request instead of opening the stream."""
    opened = (e for e in recording.events if e.kind == protocol_1.Kind.OPEN and e.body)
    return not any(e.stream == stream and e.envelope is None for e in opened)


@asynccontextmanager
async def _worker(driver: Driver, instance: str, url: str | None) -> AsyncIterator[RequestServer]:
    async with AsyncExitStack() as stack:
        ingresses = await stack.enter_async_context(
            ingress_connections(
                instance, EngineHandler(driver.engine), load_at_end=lambda: driver.engine.load_now
            )
        )
        server: RequestServer
        if url is None:
            server = await stack.enter_async_context(tcp_request_server(ingresses))
        else:
            server = await stack.enter_async_context(nats_requests(NatsSettings((url,))))
        record = make_record(instance, server)
        serving = server.serve(record, ingresses.accept, lambda: driver.engine.load_now)
        await stack.enter_async_context(serving)
        driver.ingresses[instance] = ingresses
        driver.exits[instance] = stack
        yield server


def play(scenario: str, nats_servers: RecordedServers) -> tuple[Driver, OldIngress]:
    async def body() -> tuple[Driver, OldIngress]:
        recording = load(scenario)
        driver = Driver(recording)
        ingress = OldIngress(recording, driver)
        url = nats_servers.url(scenario) if recording.request_plane == "nats" else None
        async with AsyncExitStack() as stack:
            for instance in recording.instances:
                server = await stack.enter_async_context(_worker(driver, instance, url))
            if url is not None:
                await stack.enter_async_context(ingress.asking(url))
            else:
                assert isinstance(server, TcpRequestServer)
                address, key = server.reach.loopback, server.key
                await stack.enter_async_context(ingress.dialling(address, key))
            await ingress.play()
            if scenario in ("cancel", "late_open"):
                await until(lambda: driver.engine.running == 0)
        return driver, ingress

    return asyncio.run(body(), debug=True)


@pytest.mark.parametrize("scenario", [*OVER_NATS, *OVER_TCP])
def test_an_old_ingress_reads_what_this_worker_answers(
    scenario: str, nats_servers: RecordedServers
) -> None:
    recording = load(scenario)
    driver, ingress = play(scenario, nats_servers)
    expected = answers(recording)
    assert set(ingress.answers) == set(expected)
    for stream, answer in ingress.answers.items():
        if answer.error is None or scenario != "refusals":
            assert answer.ids == expected[stream].ids
            assert answer.texts == expected[stream].texts
            assert answer.finish == expected[stream].finish
            assert answer.embedding == expected[stream].embedding
        assert (answer.error or ("",))[0] == (expected[stream].error or ("",))[0]
    assert driver.engine.seen


@pytest.mark.parametrize("scenario", [*OVER_NATS, *OVER_TCP])
def test_this_worker_reads_all_that_an_old_ingress_asks(
    scenario: str, nats_servers: RecordedServers
) -> None:
    recording = load(scenario)
    driver, _ = play(scenario, nats_servers)
    for event in recording.events:
        if (envelope := event.envelope) is None or envelope.stream not in driver.engine.seen:
            continue
        asked, seen = recorded_request(recording, event), driver.engine.seen[envelope.stream]
        for name in asked.__struct_fields__:
            theirs, ours = getattr(asked, name), getattr(seen, name)
            if name in ("sampling", "guide") and theirs is not None:
                # A field that a later release has added is not among theirs.
                theirs = structs.asdict(theirs)
                ours = {key: getattr(ours, key) for key in theirs}
            assert ours == theirs, name


@pytest.mark.parametrize("scenario", ["answer_tokens", "tcp"])
def test_a_worker_that_speaks_more_versions_meets_an_old_ingress(
    scenario: str, nats_servers: RecordedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "SPOKEN", VersionRange(1, 3))
    _, ingress = play(scenario, nats_servers)
    expected = answers(load(scenario))
    assert [a.ids for a in ingress.answers.values()] == [a.ids for a in expected.values()]


def test_an_old_ingress_gets_the_load_that_it_asks_for(nats_servers: RecordedServers) -> None:
    _, ingress = play("answer_tokens", nats_servers)
    assert ingress.load == protocol_1.Load(*load("answer_tokens").load or ())
