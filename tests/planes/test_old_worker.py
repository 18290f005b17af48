"""A recorded worker of protocol 1 with an ingress of this release."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import cache

import pytest
from msgspec import convert, msgpack, structs

from dynemo.connection.addresses import host_id
from dynemo.errors import DynemoError
from dynemo.messages.records import Capabilities, InstanceRecord, Load
from dynemo.messages.request import Request
from dynemo.planes.requests.base import RequestPlane
from dynemo.planes.requests.nats.client import NatsSettings
from dynemo.planes.requests.nats.plane import nats_requests
from dynemo.planes.requests.tcp import TcpRequests
from dynemo.planes.responses.listen import ResponseListener, listen
from dynemo.prompt.card.card import Card
from dynemo.prompt.card.wire import unpack_card
from dynemo.prompt.needs import SAMPLING
from dynemo.router.router import make_router
from dynemo.serving.migration import text_codec
from dynemo.serving.pool import Pool
from dynemo.serving.remote import RemoteInstance
from dynemo.wire import versions
from dynemo.wire.versions import VersionRange
from support.old_worker import OldWorker, recorded_request
from support.recorded_servers import OVER_NATS, OVER_TCP, RecordedServers
from support.recording import Answer, Event, Recording, answers, load, load_raw, request_of
from support.records import make_record
from support.waiting import until


@cache
def demo_card() -> Card:
    """Returns the card that an old worker registered for the model of the recordings."""
    keys = load_raw("discovery_etcd")["keys"]
    blob = next(k for k in keys if k.get("card", {}).get("name") == "demo")
    return unpack_card(convert(blob["value"], bytes))


class Driver:
    """An ingress of this release, and its answers by recorded stream."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.answers: dict[int, Answer] = {}
        self.load: Load | None = None
        self.pool: Pool | None = None
        self._asked: set[int] = set()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._load_task: asyncio.Task[None] | None = None

    def open(self, responses: ResponseListener, requests: RequestPlane, loopback: str) -> None:
        self._responses, self._requests = responses, requests
        self._records = [_record(self.recording, id, loopback) for id in self.recording.instances]
        if len(self._records) > 1:
            codec = text_codec(demo_card().tokenizer)
            self.pool = Pool(make_router("round-robin"), codec, 3)
            for record in self._records:
                self.pool.add(RemoteInstance(record, requests, responses))

    def ask(self, event: Event) -> None:
        envelope = event.envelope
        assert envelope is not None
        stream = envelope.stream
        if stream in self._asked or (self.pool is not None and self._asked):
            return  # the pool itself sends it to another instance
        self._asked.add(stream)
        self.answers[stream] = Answer()
        request = msgpack.decode(request_of(self.recording, event), type=Request)
        self._tasks[stream] = asyncio.create_task(self._read(stream, request))

    async def _read(self, stream: int, request: Request) -> None:
        answer = self.answers[stream]
        source = self.pool or RemoteInstance(self._records[0], self._requests, self._responses)
        try:
            async with aclosing(source.generate(request)) as deltas:
                async for delta in deltas:
                    answer.take(delta)
        except DynemoError as error:
            answer.fail(error)

    def ask_load(self) -> None:
        self._load_task = asyncio.create_task(self._read_load())

    async def _read_load(self) -> None:
        self.load = await self._requests.load(self._records[0])

    async def cancel(self, stream: int) -> None:
        recorded = answers(self.recording)[stream]
        answer, task = self.answers[stream], self._tasks[stream]
        if self.recording.scenario != "late_open":
            await until(lambda: answer.ids == recorded.ids)
        task.cancel()
        await asyncio.wait([task])

    async def before_close(self) -> None:
        if self.recording.request_plane == "tcp":
            self.ask_load()
            await until(lambda: self.load is not None)

    async def finish(self) -> None:
        tasks = [*self._tasks.values(), *filter(None, [self._load_task])]
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks, return_exceptions=True)

    def load_of_worker(self) -> Load | None:
        return self._responses.load_of(self.recording.instances[0])


def _record(recording: Recording, instance_id: str, loopback: str) -> InstanceRecord:
    if recording.record is None:
        key = convert(recording.secrets["worker_key"] or "", bytes).hex()
        record = structs.replace(make_record(instance_id), key=key)
        able = Capabilities(sampling=[*SAMPLING, "ignore_eos"])
        instance = structs.replace(record.instance, context_length=8192, capabilities=able)
        record = structs.replace(record, instance=instance)
    else:
        record = msgpack.decode(convert(recording.record["body"], bytes), type=InstanceRecord)
    return structs.replace(record, addresses=[], loopback=loopback, host=host_id())


@asynccontextmanager
async def _played(
    scenario: str, nats_servers: RecordedServers
) -> AsyncIterator[tuple[Driver, OldWorker]]:
    """Plays the scenario to its end, while the ingress still runs."""
    recording = load(scenario)
    driver = Driver(recording)
    worker = OldWorker(recording, driver)
    async with AsyncExitStack() as stack:
        responses = await stack.enter_async_context(listen("127.0.0.1"))
        requests: RequestPlane
        if recording.request_plane == "nats":
            url = nats_servers.url(scenario)
            await stack.enter_async_context(worker.subscribed(url))
            requests = await stack.enter_async_context(nats_requests(NatsSettings((url,))))
        else:
            await stack.enter_async_context(worker.listening())
            requests = TcpRequests(responses)
        driver.open(responses, requests, worker.loopback)
        await worker.play()
        await driver.finish()
        yield driver, worker


def play(scenario: str, nats_servers: RecordedServers) -> tuple[Driver, OldWorker, Load | None]:
    async def body() -> tuple[Driver, OldWorker, Load | None]:
        async with _played(scenario, nats_servers) as (driver, worker):
            return driver, worker, driver.load_of_worker()

    return asyncio.run(body(), debug=True)


@pytest.mark.parametrize("scenario", [*OVER_NATS, *OVER_TCP])
def test_an_old_worker_gets_what_it_knows_and_its_answers_arrive(
    scenario: str, nats_servers: RecordedServers
) -> None:
    recording = load(scenario)
    driver, worker, _ = play(scenario, nats_servers)
    asked = [event for event in recording.events if event.envelope is not None]
    assert asked
    for event in asked:
        assert event.envelope is not None
        stream = event.envelope.stream
        assert worker.requests[stream] == recorded_request(recording, event)
    expected = answers(recording)
    if scenario == "late_open":
        expected[2] = Answer()  # it was cancelled before its answer
    if driver.pool is None:
        assert driver.answers == expected


@pytest.mark.parametrize("scenario", ["answer_tokens", "tcp"])
def test_an_ingress_that_speaks_more_versions_meets_an_old_worker(
    scenario: str, nats_servers: RecordedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "SPOKEN", VersionRange(1, 3))
    driver, _, _ = play(scenario, nats_servers)
    assert driver.answers == answers(load(scenario))


def test_an_answer_moves_from_one_old_worker_to_another(nats_servers: RecordedServers) -> None:
    recording = load("request_migrated")
    driver, worker, _ = play("request_migrated", nats_servers)
    [answer] = driver.answers.values()
    assert "".join(answer.texts) == recording.answered["text"]
    assert list(answer.finish or ()) == recording.answered["finish"]
    assert answer.error is None
    assert driver.pool is not None
    assert driver.pool.moves == 1
    assert worker.requests[2].continued > 0


def test_the_ids_of_an_old_worker_make_the_recorded_text(nats_servers: RecordedServers) -> None:
    recording = load("answer_tokens")
    driver, _, _ = play("answer_tokens", nats_servers)
    answer = driver.answers[1]
    detokenizer = demo_card().tokenizer.detokenizer()
    text = detokenizer.feed(answer.ids) + detokenizer.flush()
    assert text == recording.answered["text"]
    assert list(answer.finish or ()) == recording.answered["finish"]


@pytest.mark.parametrize("scenario", ["answer_tokens", "tcp"])
def test_an_old_worker_reports_its_load_on_request(
    scenario: str, nats_servers: RecordedServers
) -> None:
    driver, _, _ = play(scenario, nats_servers)
    assert driver.load == Load(*load(scenario).load or ())


def test_heartbeats_and_ends_of_an_old_worker_carry_its_load(nats_servers: RecordedServers) -> None:
    _, _, last = play("heartbeats", nats_servers)
    assert last == Load(2, 0, 0.0)
