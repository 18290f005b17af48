"""Peers with other ranges of versions agree on one version, or say what to upgrade."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec import convert, json, msgpack, structs

from dynemo.connection.addresses import host_id, split_address
from dynemo.connection.server import EngineHandler
from dynemo.errors import InstanceGone, Unavailable
from dynemo.messages.records import InstanceRecord
from dynemo.messages.wire import Envelope, Greeting
from dynemo.planes.requests.tcp import TcpRequests, TcpRequestServer, tcp_request_server
from dynemo.planes.responses.ingresses import IngressConnections, ingress_connections
from dynemo.planes.responses.listen import ResponseListener, listen
from dynemo.serving.remote import RemoteInstance
from dynemo.wire import versions
from dynemo.wire.failures import encode_error, reason_of
from dynemo.wire.frames import FrameKind, encode
from dynemo.wire.versions import VersionRange, negotiate
from support import protocol_1
from support.frame_peer import FramePeer, accepted
from support.planes_world import FakeEngine, collect, make_request
from support.recording import FOLDER, Event
from support.records import make_record
from support.waiting import until

WORKER = "w" * 32
ONE, ONE_TO_THREE, THREE_TO_FOUR = VersionRange(1, 1), VersionRange(1, 3), VersionRange(3, 4)
UPGRADE_INGRESS = (
    "Worker wwwwwwww speaks protocol 3 to 4; the ingress speaks protocol 1. Upgrade the ingress."
)
UPGRADE_WORKER = (
    "Worker wwwwwwww speaks protocol 1; the ingress speaks protocol 3 to 4. Upgrade the worker."
)


@pytest.fixture
def speaking(monkeypatch: pytest.MonkeyPatch) -> "Speaking":
    return Speaking(monkeypatch)


class Speaking:
    """Makes this process speak other versions, like another release."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, spoken: VersionRange) -> None:
        self._monkeypatch.setattr(versions, "SPOKEN", spoken)


def _said(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records)


# An ingress of this release, and a worker that dials it.


async def _dial(responses: ResponseListener, spoken: VersionRange) -> FramePeer:
    peer = FramePeer()
    await peer.dial(responses.reach.loopback)
    peer.greet(spoken, WORKER, responses.key)
    return peer


@pytest.mark.parametrize(
    ("ours", "theirs", "version"),
    [
        (ONE, ONE, 1),
        (ONE, ONE_TO_THREE, 1),
        (ONE_TO_THREE, ONE, 1),
        (ONE_TO_THREE, VersionRange(2, 4), 3),
        (THREE_TO_FOUR, ONE_TO_THREE, 3),
    ],
)
def test_an_ingress_speaks_the_highest_version_of_both(
    ours: VersionRange, theirs: VersionRange, version: int, speaking: Speaking
) -> None:
    speaking(ours)

    async def body() -> None:
        async with listen("127.0.0.1") as responses:
            peer = await _dial(responses, theirs)
            await peer.next(FrameKind.PING)  # the ingress has accepted it
            [connection] = responses._workers[WORKER]
            assert connection.version == version
            peer.connection.close()

    asyncio.run(body())


def test_an_ingress_refuses_a_worker_and_logs_it_once(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with listen("127.0.0.1") as responses:
            for _ in range(3):
                peer = await _dial(responses, THREE_TO_FOUR)
                error = await peer.next(FrameKind.ERROR)
                assert error.stream == 0
                assert reason_of(error.body) == UPGRADE_INGRESS
                await until(lambda peer=peer: peer.is_closed)
            assert not responses._workers

    with caplog.at_level(logging.DEBUG, "dynemo"):
        asyncio.run(body())
    assert _said(caplog, UPGRADE_INGRESS) == 1
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1


# A worker of this release that dials the ingress of an envelope.


@asynccontextmanager
async def _worker() -> AsyncIterator[tuple[IngressConnections, TcpRequestServer, InstanceRecord]]:
    """Runs a worker that takes requests over TCP and through `accept`."""
    engine = FakeEngine()
    async with (
        ingress_connections(WORKER, EngineHandler(engine)) as ingresses,
        tcp_request_server(ingresses) as server,
    ):
        record = make_record(WORKER, server)
        async with server.serve(record, ingresses.accept):
            yield ingresses, server, record


def _envelope(spoken: VersionRange, address: str, stream: int = 1) -> bytes:
    envelope = Envelope(
        key=b"k" * 32,
        addresses=[address],
        host=host_id(),
        stream=stream,
        token=b"t" * 16,
        request=msgpack.encode(make_request()),
        oldest=spoken.oldest,
        newest=spoken.newest,
    )
    return msgpack.encode(envelope)


@pytest.mark.parametrize(
    ("ours", "theirs", "version"),
    [(ONE, ONE_TO_THREE, 1), (ONE_TO_THREE, ONE, 1), (ONE_TO_THREE, VersionRange(2, 4), 3)],
)
def test_a_worker_speaks_the_highest_version_of_both(
    ours: VersionRange, theirs: VersionRange, version: int, speaking: Speaking
) -> None:
    speaking(ours)

    async def body() -> None:
        peers: list[FramePeer] = []
        async with _worker() as (ingresses, _, _), accepted(peers) as address:
            asking = asyncio.create_task(ingresses.accept(_envelope(theirs, address)))
            await until(lambda: peers)
            hello = await peers[0].next(FrameKind.HELLO)
            greeting = msgpack.decode(hello.body, type=Greeting)
            assert (greeting.protocol, greeting.newest) == ours
            peers[0].connection.send(FrameKind.PING, 0)
            await asking
            assert (await peers[0].next(FrameKind.END)).stream == 1
            [connection] = ingresses._all
            assert connection.version == version

    asyncio.run(body())


def test_a_worker_refuses_a_request_and_logs_it_once(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        peers: list[FramePeer] = []
        async with _worker() as (ingresses, _, _), accepted(peers) as address:
            for stream in range(3):
                with pytest.raises(Unavailable) as caught:  # another worker may answer
                    await ingresses.accept(_envelope(THREE_TO_FOUR, address, stream + 1))
                assert str(caught.value) == UPGRADE_WORKER
            assert not peers

    with caplog.at_level(logging.DEBUG, "dynemo"):
        asyncio.run(body())
    assert _said(caplog, UPGRADE_WORKER) == 1


def test_a_worker_says_why_an_ingress_refuses_its_hello() -> None:
    """The range in the envelope fits, but the ingress still refuses."""

    async def body() -> None:
        peers: list[FramePeer] = []
        async with _worker() as (ingresses, _, _), accepted(peers) as address:
            asking = asyncio.create_task(ingresses.accept(_envelope(ONE, address)))
            await until(lambda: peers)
            with pytest.raises(Exception, match="Upgrade") as caught:
                negotiate(WORKER, ONE, THREE_TO_FOUR)
            peers[0].connection.send(FrameKind.ERROR, 0, encode_error(caught.value))
            with pytest.raises(Unavailable, match=r"cannot reach .*Upgrade the worker"):
                await asking

    asyncio.run(body())


# A worker of this release that an ingress dials.


@pytest.mark.parametrize(
    ("ours", "theirs", "version"),
    [(ONE, ONE_TO_THREE, 1), (ONE_TO_THREE, ONE, 1), (ONE_TO_THREE, VersionRange(2, 4), 3)],
)
def test_a_dialled_worker_speaks_the_highest_version_of_both(
    ours: VersionRange, theirs: VersionRange, version: int, speaking: Speaking
) -> None:
    speaking(ours)

    async def body() -> None:
        async with _worker() as (ingresses, server, record):
            peer = FramePeer()
            await peer.dial(record.loopback)
            peer.greet(theirs, WORKER, bytes.fromhex(server.key), b"k" * 32)
            hello = msgpack.decode((await peer.next(FrameKind.HELLO)).body, type=Greeting)
            assert (hello.protocol, hello.newest) == ours
            [connection] = ingresses._all
            assert connection.version == version
            peer.connection.close()

    asyncio.run(body())


def test_a_dialled_worker_refuses_an_ingress_and_logs_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body() -> None:
        async with _worker() as (ingresses, server, record):
            for _ in range(3):
                peer = FramePeer()
                await peer.dial(record.loopback)
                peer.greet(THREE_TO_FOUR, WORKER, bytes.fromhex(server.key), b"k" * 32)
                error = await peer.next(FrameKind.ERROR)
                assert reason_of(error.body) == UPGRADE_WORKER
                await until(lambda peer=peer: peer.is_closed)
            assert not ingresses._all

    with caplog.at_level(logging.DEBUG, "dynemo"):
        asyncio.run(body())
    assert _said(caplog, UPGRADE_WORKER) == 1
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1


# An ingress of this release that dials a worker.


@asynccontextmanager
async def _dialled(
    peers: list[FramePeer],
) -> AsyncIterator[tuple[ResponseListener, RemoteInstance]]:
    async with listen("127.0.0.1") as responses, accepted(peers) as address:
        record = structs.replace(make_record(WORKER), addresses=[address], host=host_id(), key="ab")
        yield responses, RemoteInstance(record, TcpRequests(responses), responses)


@pytest.mark.parametrize("answer", ["HELLO", "ERROR"])
def test_an_ingress_that_dials_says_what_to_upgrade_and_logs_it_once(
    answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = UPGRADE_INGRESS if answer == "HELLO" else UPGRADE_WORKER

    async def body() -> None:
        peers: list[FramePeer] = []
        async with _dialled(peers) as (responses, remote):
            for turn in range(3):
                asking = asyncio.create_task(collect(remote.generate(make_request())))
                await until(lambda turn=turn: len(peers) > turn)
                await peers[turn].next(FrameKind.HELLO)
                if answer == "HELLO":
                    peers[turn].greet(THREE_TO_FOUR, WORKER, responses.key)
                else:
                    refusal = Unavailable(UPGRADE_WORKER)
                    peers[turn].connection.send(FrameKind.ERROR, 0, encode_error(refusal))
                with pytest.raises(InstanceGone) as caught:
                    await asking
                assert text in str(caught.value)

    with caplog.at_level(logging.DEBUG, "dynemo"):
        asyncio.run(body())
    assert _said(caplog, text) == 1
    assert _said(caplog, "Cannot reach worker wwwwwwww") == 1


# A release without protocol 1 meets a peer of protocol 1.


def test_an_old_worker_is_refused_when_protocol_1_has_gone(speaking: Speaking) -> None:
    speaking(THREE_TO_FOUR)

    async def body() -> None:
        async with listen("127.0.0.1") as responses:
            peer = FramePeer()
            await peer.dial(responses.reach.loopback)
            hello = protocol_1.Greeting(1, WORKER, responses.key)
            peer.connection.send(FrameKind.HELLO, 0, msgpack.encode(hello))
            error = await peer.next(FrameKind.ERROR)
            assert str(protocol_1.raised(error.body)) == UPGRADE_WORKER
            await until(lambda: peer.is_closed)

    asyncio.run(body())


def test_an_old_ingress_is_refused_when_protocol_1_has_gone(speaking: Speaking) -> None:
    speaking(THREE_TO_FOUR)

    async def body() -> None:
        async with _worker() as (ingresses, _, _):
            old = protocol_1.Envelope(key=b"k" * 32, addresses=[], stream=1, token=b"t")
            with pytest.raises(Unavailable) as caught:
                await ingresses.accept(msgpack.encode(old))
            refusal = protocol_1.raised(encode_error(caught.value))
            assert type(refusal) is protocol_1.Unavailable
            assert str(refusal) == UPGRADE_INGRESS

    asyncio.run(body())


def _recorded_hello(side: str, key: bytes, secret: str) -> bytes:
    """Returns the recorded HELLO of protocol 2, with our key."""
    raw = json.decode((FOLDER / "protocol_2.json").read_bytes())["dialled"][side]
    events = convert(raw["events"], list[Event])
    [hello] = [event for event in events if event.kind == FrameKind.HELLO]
    return hello.body.replace(convert(raw["secrets"][secret], bytes), key)


def test_the_hello_of_protocol_2_gets_a_reason_now() -> None:
    async def body() -> None:
        async with listen("127.0.0.1") as responses, _worker() as (ingresses, server, record):
            instance = "1" * 32
            ingresses.instance_id = instance
            ingress, worker = responses.reach.loopback, record.loopback
            key = bytes.fromhex(server.key)
            hellos = {
                ingress: _recorded_hello(
                    "a worker that dials the ingress", responses.key, "ingress_key"
                ),
                worker: _recorded_hello("an ingress that dials the worker", key, "worker_key"),
            }
            for address, hello in hellos.items():
                reader, writer = await asyncio.open_connection(*split_address(address))
                writer.write(encode(FrameKind.HELLO, 0, hello))
                frames = protocol_1.FrameReader().feed(await reader.read())
                [error] = [frame for frame in frames if frame.kind == FrameKind.ERROR]
                assert "speaks protocol 2" in reason_of(error.body)
                writer.close()
                await writer.wait_closed()

    asyncio.run(body())
