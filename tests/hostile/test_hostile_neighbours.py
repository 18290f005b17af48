"""Records of discovery and envelopes that a stranger has written."""

import asyncio
import logging
import math
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import DecodeError, msgpack, structs

from dynemo.connection.addresses import connect, dialable, host_id, host_name
from dynemo.connection.framed import FramedConnection
from dynemo.connection.permitted import refusal_of
from dynemo.connection.server import EngineHandler
from dynemo.errors import InstanceGone, Unavailable, UsageError, WireError
from dynemo.limits import ADDRESSES, DIALLED_PEERS, RECORD_BYTES
from dynemo.messages.records import Capabilities, InstanceRecord
from dynemo.messages.wire import Envelope
from dynemo.models.find import find_model
from dynemo.models.load import read_model
from dynemo.planes.discovery.base import instance_key
from dynemo.planes.discovery.discovery import Discovery
from dynemo.planes.discovery.etcd.backend import EtcdSettings, open_etcd
from dynemo.planes.discovery.memory import MemoryStore, open_memory
from dynemo.planes.discovery.records import read_record
from dynemo.planes.names import parse_name
from dynemo.planes.requests.memory import MemoryRequests
from dynemo.planes.requests.nats.client import subject
from dynemo.planes.responses.ingresses import ingress_connections
from dynemo.planes.responses.listen import listen
from dynemo.prompt.card.wire import pack_card
from dynemo.router.router import make_router
from dynemo.serving.ingress import Ingress, Planes, ingress
from support.etcd_server import EtcdServer, etcd_running
from support.planes_world import FakeEngine
from support.records import make_instance, make_record
from support.waiting import until

ADDRESS = parse_name("dyn://pool")
KEY = instance_key(ADDRESS, "i")
DEEP = {
    "arrays": b"\x91" * 3000 + b"\x01",
    "maps": b"\x81\xa1k" * 3000 + b"\x01",
    "an unknown field": b"\x81\xa6strange"[:2] + b"6strang" + b"\x91" * 3000 + b"\x01",
}


def _with(**fields: Any) -> bytes:
    return msgpack.encode(make_record("i", **fields))


def _instance(**fields: Any) -> bytes:
    return msgpack.encode(make_record(make_instance("i", **fields)))


def _able(**fields: Any) -> bytes:
    return _instance(capabilities=Capabilities(**fields))


BAD = {
    **DEEP,
    "empty": b"",
    "not msgpack": b"\xc1",
    "text that is not UTF-8": _with().replace(b"dynemo", b"dyn\xff\xfeo"),
    "a string that claims 4 GB": b"\xdb\xff\xff\xff\xff",
    "an array that claims 4 billion items": b"\xdd\xff\xff\xff\xff",
    "too long": _with(model="m" * RECORD_BYTES),
    "no model": _with(model=""),
    "a model of 300 characters": _with(model="m" * 300),
    "a model with an escape": _with(model="\x1b]52;c;aGk=\x07"),
    "a model of two lines": _with(model="a\nb"),
    "a NATS wildcard": _with(component=">"),
    "a line of NATS": _with(endpoint="x\r\nPUB other 2\r\nhi\r\n"),
    "a component with a slash": _with(component="a/b"),
    "another instance": msgpack.encode(make_record("other")),
    "a negative context": _instance(context_length=-1),
    "a huge context": _instance(context_length=2**62),
    "no slots": _instance(slots=0),
    "a billion slots": _instance(slots=10**9),
    "an engine with an escape": _instance(engine="\x1b[2J"),
    "too many settings": _able(sampling=[f"s{n}" for n in range(1000)]),
    "a long guide": _able(guides=["g" * 1000]),
    "too many addresses": _with(addresses=["10.0.0.1:80"] * (ADDRESSES + 1)),
    "a long address": _with(addresses=["h" * 400 + ":1"]),
    "an address of two lines": _with(loopback="127.0.0.1:1\n"),
    "a key that is not hexadecimal": _with(key="xyz"),
    "a start that is not a number": _with(started=math.nan),
    "a negative process": _with(pid=-1),
    "a negative weight": _with(weight=-1.0),
    "a weight that is not a number": _with(weight=math.nan),
    "a weight over 1": _with(weight=1.5),
    "protocol 0": _with(oldest=0),
    "a huge protocol": _with(newest=2**40),
}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_a_bad_record_is_refused_with_a_reason(value: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        read_record(KEY, value)
    assert 0 < len(str(caught.value)) < 300


def test_a_good_record_is_read() -> None:
    record = make_record("i", model="org/Model 7B ü", addresses=["tls://[2001:db8::1]:80", "h:1"])
    assert read_record(KEY, msgpack.encode(record)) == record


@pytest.mark.parametrize("name", [">", "*", "a.b", "a b", "x\r\nPUB y 0\r\n", ""])
def test_a_name_cannot_change_a_subject(name: str) -> None:
    with pytest.raises(InstanceGone, match="name that NATS cannot carry"):
        subject(make_record(make_instance(name)))


@pytest.fixture(scope="module")
def card() -> bytes:
    return pack_card(read_model(find_model("demo"), "demo", None).card())


@asynccontextmanager
async def _ingress(discovery: Discovery) -> AsyncIterator[Ingress]:
    async with listen("127.0.0.1") as responses:
        planes = Planes(discovery, MemoryRequests(), responses)
        made = ingress(
            ADDRESS, planes, make_router=lambda: make_router("random"), migration_limit=3
        )
        async with made as found:
            yield found


def _good(digest: str, name: str = "good", model: str = "demo") -> bytes:
    return msgpack.encode(make_record(name, model=model, card=digest, identity="same"))


def test_bad_records_end_nothing(card: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Each is skipped, logged once and counted; the instances before and after them are served."""

    async def body() -> None:
        store = MemoryStore()
        async with open_memory(store) as ours, open_memory(store) as theirs, _ingress(ours) as it:
            digest = await theirs.put_blob(card)
            for number, value in enumerate(BAD.values()):
                await theirs.put(instance_key(ADDRESS, f"bad{number}"), value)
            await theirs.put(instance_key(ADDRESS, "good"), _good(digest))
            await until(lambda: "demo" in it.models)
            assert it.bad_records == len(BAD)
            assert it.trouble == ""
            logged = [each for each in caplog.records if "cannot be used" in each.getMessage()]
            assert len(logged) == len(BAD)
            await theirs.put(instance_key(ADDRESS, "bad0"), b"\xc1")
            await theirs.put(instance_key(ADDRESS, "late"), _good(digest, "late"))
            await until(lambda: len(it.models["demo"].backend.instances) == 2)
            again = [each for each in caplog.records if "cannot be used" in each.getMessage()]
            assert len(again) == len(BAD)

    with caplog.at_level(logging.ERROR):
        asyncio.run(body())
    assert not [each.getMessage() for each in caplog.records if each.exc_info]


BAD_CARDS = {
    "a bomb": b"DYNCARD\x01" + zlib.compress(bytes(80 << 20), 9),
    "nested": b"DYNCARD\x01" + zlib.compress(DEEP["arrays"]),
    "no card": b"hello",
    "cut": b"DYNCARD\x01" + zlib.compress(b"x" * 1000)[:10],
}


def test_bad_cards_end_nothing(card: bytes) -> None:
    async def body() -> None:
        store = MemoryStore()
        async with open_memory(store) as ours, open_memory(store) as theirs, _ingress(ours) as it:
            for number, blob in enumerate(BAD_CARDS.values()):
                digest = await theirs.put_blob(blob)
                record = _good(digest, f"bad{number}", f"m{number}")
                await theirs.put(instance_key(ADDRESS, f"bad{number}"), record)
            digest = await theirs.put_blob(card)
            await theirs.put(instance_key(ADDRESS, "good"), _good(digest))
            await until(lambda: "demo" in it.models)
            assert set(it.models) == {"demo"}

    asyncio.run(body())


def test_a_fault_of_the_watch_is_shown_and_the_watch_starts_again(
    card: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        store = MemoryStore()
        async with open_memory(store) as ours, open_memory(store) as theirs, _ingress(ours) as it:
            digest = await theirs.put_blob(card)
            for name in ("one", "two"):
                await theirs.put(instance_key(ADDRESS, name), _good(digest, name))
            await until(lambda: "demo" in it.models)
            await until(lambda: len(it.models["demo"].backend.instances) == 2)

            def fail(*_: object) -> None:
                raise ZeroDivisionError

            with monkeypatch.context() as patch:
                patch.setattr("dynemo.serving.ingress.read_record", fail)
                await theirs.put(instance_key(ADDRESS, "three"), _good(digest, "three"))
                await until(lambda: "ingress watch failed" in it.trouble)
                await theirs.remove(instance_key(ADDRESS, "one"))  # nobody sees this change
            await until(lambda: it.trouble == "", seconds=40)
            listed = {each[0].id for each in it.models["demo"].backend.instances}
            assert listed == {"two", "three"}

    asyncio.run(body())
    assert "The task ingress watch failed" in caplog.text


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdServer]:
    yield from etcd_running()


def test_keys_in_etcd_that_are_not_text_are_skipped(etcd: EtcdServer) -> None:
    async def body() -> None:
        settings = EtcdSettings((etcd.address,))
        async with open_etcd(settings) as ours, open_etcd(settings) as theirs:
            store: Any = theirs._store
            lease = await store.grant(60)
            put = store._rpc.PutRequest(key=b"/dynemo/x/\xff\xfe", value=b"1", lease=lease)
            await store._connection.call("KVStub", "Put", put)
            await theirs.put("/dynemo/x/good", b"1")
            assert await ours.read("/dynemo/x/") == {"/dynemo/x/good": b"1"}
            seen: dict[str, bytes | None] = {}

            async def watch() -> None:
                async for changes in ours.watch("/dynemo/x/"):
                    seen.update(changes)

            watching = asyncio.create_task(watch())
            await until(lambda: "/dynemo/x/good" in seen)
            await store._connection.call("KVStub", "Put", put)
            await theirs.put("/dynemo/x/late", b"1")
            await until(lambda: "/dynemo/x/late" in seen)
            assert not watching.done()
            watching.cancel()
            await store.revoke(lease)

    asyncio.run(body())


NEVER = ["169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"]
NEVER += ["0.1.2.3", "100.100.100.200", "fd00:ec2::254", "::ffff:169.254.169.254", "::ffff:0.0.0.0"]
LOOPBACK = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]


@pytest.mark.parametrize("host", NEVER)
def test_addresses_that_are_never_dialled(host: str) -> None:
    assert refusal_of(host, is_same_host=True)
    with pytest.raises(UsageError, match="--advertise"):
        dialable("", 5000, f"[{host}]" if ":" in host else host)


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_is_dialled_on_the_same_host_alone(host: str) -> None:
    assert refusal_of(host, is_same_host=False)
    assert not refusal_of(host, is_same_host=True)


@pytest.mark.parametrize("host", ["10.0.0.1", "192.168.1.1", "2001:db8::1", "fd12::1"])
def test_other_addresses_are_dialled(host: str) -> None:
    assert not refusal_of(host, is_same_host=False)


class Service:
    """A server on loopback of others, such as a database. Counts its connections."""

    def __init__(self) -> None:
        self.connections = 0
        self.received = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.received += await reader.read(65536)
        writer.close()


@asynccontextmanager
async def _service(host: str = "127.0.0.1") -> AsyncIterator[tuple[Service, int]]:
    service = Service()
    server = await asyncio.start_server(service.serve, host, 0)
    async with server:
        yield service, server.sockets[0].getsockname()[1]


#: Ways to write loopback, some of which only a resolver understands.
SPELLINGS = ["127.0.0.1:{}", "localhost:{}", "127.1:{}", "2130706433:{}", "0x7f.1:{}", "0.0.0.0:{}"]
SPELLINGS += ["[::ffff:127.0.0.1]:{}", "0:{}", "[::ffff:7f00:1]:{}"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_strangers_word_makes_nobody_dial_loopback(spelling: str) -> None:
    async def body() -> None:
        connection = FramedConnection(lambda _: None, lambda _: None)
        async with _service() as (service, port):
            with pytest.raises(OSError, match=r"loopback|address|Name or service"):
                await connect(connection, spelling.format(port), None, is_same_host=False)
            assert not service.connections

    asyncio.run(body())


def _envelope(**fields: Any) -> bytes:
    envelope = Envelope(key=b"k" * 32, addresses=[], stream=1, token=b"t" * 16, request=b"x")
    return msgpack.encode(structs.replace(envelope, **fields))


def _ask(body: bytes) -> Exception:
    """Returns a worker's answer to a stranger's envelope."""

    async def ask() -> Exception:
        async with ingress_connections("w" * 32, EngineHandler(FakeEngine())) as ingresses:
            with pytest.raises(Exception) as caught:  # noqa: PT011
                await ingresses.accept(body)
            return caught.value

    return asyncio.run(ask())


BAD_ENVELOPES: dict[str, bytes] = {
    **DEEP,
    "a short key": _envelope(key=b"\r\nFLUSHALL\r\n"),
    "a long key": _envelope(key=b"\r\nFLUSHALL\r\n" * 100),
    "no token": _envelope(token=b""),
    "a long token": _envelope(token=b"t" * 65536),
    "stream 0": _envelope(stream=0),
    "a negative stream": _envelope(stream=-1),
    "a long address": _envelope(addresses=["h" * 100_000 + ":1"]),
    "a long loopback address": _envelope(loopback="h" * 100_000 + ":1"),
    "a long host": _envelope(host="h" * 100_000),
}


@pytest.mark.parametrize("body", BAD_ENVELOPES.values(), ids=BAD_ENVELOPES)
def test_a_bad_envelope_is_refused(body: bytes) -> None:
    error = _ask(body)
    assert isinstance(error, WireError)
    assert "does not decode" in str(error)
    assert len(str(error)) < 300


@pytest.mark.parametrize("where", ["addresses", "loopback"])
def test_an_envelope_makes_no_worker_dial_its_own_loopback(where: str) -> None:
    async def body() -> None:
        async with (
            _service() as (service, port),
            ingress_connections("w" * 32, EngineHandler(FakeEngine())) as ingresses,
        ):
            there = f"127.0.0.1:{port}"
            fields: dict[str, Any] = {"addresses": [there]} if where == "addresses" else {}
            fields = fields or {"loopback": there}
            with pytest.raises(Unavailable, match="cannot reach this ingress"):
                await ingresses.accept(_envelope(host="another", **fields))
            assert not service.connections

    asyncio.run(body())


def test_the_first_bytes_hold_no_secret_and_little_of_the_strangers() -> None:
    """A stranger on this host can name loopback: it gets a HELLO, and no more."""

    async def body() -> None:
        async with (
            _service() as (service, port),
            ingress_connections("w" * 32, EngineHandler(FakeEngine())) as ingresses,
        ):
            envelope = _envelope(host=host_id(), loopback=f"127.0.0.1:{port}")
            with pytest.raises(Unavailable, match="cannot reach"):
                await ingresses.accept(envelope)
            assert b"k" * 32 in service.received
            assert len(service.received) < 200

    asyncio.run(body())


def test_many_envelopes_make_a_worker_dial_a_few_at_once() -> None:
    async def body() -> None:
        dialled: list[str] = []

        async def dial(connection: FramedConnection, address: str, is_same_host: bool) -> None:
            dialled.append(address)
            await asyncio.sleep(3600)

        handler = EngineHandler(FakeEngine())
        async with ingress_connections("w" * 32, handler, dial=dial) as ingresses:
            asked = [
                asyncio.ensure_future(
                    ingresses.accept(
                        _envelope(key=n.to_bytes(32, "big"), addresses=[f"10.0.0.{n % 250}:1"] * 99)
                    )
                )
                for n in range(10 * DIALLED_PEERS)
            ]
            await until(lambda: sum(each.done() for each in asked) >= 9 * DIALLED_PEERS)
            assert len(set(dialled)) <= DIALLED_PEERS
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(each) for each in answers} <= {Unavailable, *Unavailable.__subclasses__()}

    asyncio.run(body())


def test_a_record_makes_no_ingress_dial_its_own_loopback() -> None:
    from dynemo.planes.requests.tcp import TcpRequests

    async def body() -> None:
        async with _service() as (service, port), listen("127.0.0.1") as responses:
            there = f"127.0.0.1:{port}"
            record: InstanceRecord = make_record(
                "i", addresses=[there], loopback=there, host="another", key="ab" * 32
            )
            with pytest.raises(InstanceGone, match="cannot be reached"):
                await TcpRequests(responses).load(record)
            assert not service.connections

    asyncio.run(body())


def test_no_metadata_service_is_asked() -> None:
    error = _ask(_envelope(addresses=["169.254.169.254:80"]))
    assert isinstance(error, Unavailable)
    assert "link-local or metadata" in str(error)


def test_a_flood_of_records_is_bounded(card: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynemo.serving.ingress.INSTANCES", 5)
    monkeypatch.setattr("dynemo.serving.generations.MODELS", 3)

    async def body() -> None:
        store = MemoryStore()
        async with open_memory(store) as ours, open_memory(store) as theirs, _ingress(ours) as it:
            digest = await theirs.put_blob(card)
            for number in range(20):
                record = _good(digest, f"i{number}", f"m{number}")
                await theirs.put(instance_key(ADDRESS, f"i{number}"), record)
            await until(lambda: it.bad_records == 15)
            assert len(it.models) == 3
            assert len(it.left_out) == 2

    asyncio.run(body())


@pytest.mark.parametrize("limit", ["DISCOVERY_KEYS", "DISCOVERY_BYTES"])
def test_a_listing_of_etcd_is_bounded(
    etcd: EtcdServer, limit: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(f"dynemo.planes.discovery.etcd.backend.{limit}", 300)

    async def body() -> None:
        async with open_etcd(EtcdSettings((etcd.address,))) as found:
            for number in range(600):
                await found._store.put(f"/dynemo/{limit}/{number:04}", b"1", 0)
            listed = await found.read(f"/dynemo/{limit}/")
            assert 300 <= len(listed) < 600
            await found.read(f"/dynemo/{limit}/")

    asyncio.run(body())
    assert caplog.text.count("Reads only a part of etcd") == 1


def test_a_record_does_not_tell_the_host_id_to_everybody() -> None:
    assert len({host_id(), host_name()}) == 2
    assert host_id() not in host_name()
