"""An ingress of this release reads the registrations of old workers, and the reverse."""

import asyncio
import fcntl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import convert, msgpack

from dynemo.connection.addresses import Dialable
from dynemo.messages.records import Capabilities, Instance, InstanceRecord
from dynemo.models.find import demo_checkout, demo_gguf, find_model
from dynemo.models.load import read_model
from dynemo.planes.discovery.base import identity_key, instance_key
from dynemo.planes.discovery.discovery import Discovery
from dynemo.planes.discovery.file import open_file
from dynemo.planes.discovery.marked import NAME
from dynemo.planes.discovery.memory import MemoryStore, open_memory
from dynemo.planes.names import parse_name
from dynemo.planes.requests.memory import MemoryRequests
from dynemo.planes.responses.listen import listen
from dynemo.prompt.card.card import Card
from dynemo.prompt.card.identity import identify
from dynemo.router.router import make_router
from dynemo.serving.ingress import Ingress, Planes, ingress
from dynemo.serving.worker import registered
from support import protocol_1
from support.recording import load_raw
from support.waiting import until

ADDRESS = parse_name("dyn://pool")
GGUF, CHECKOUT = "demo", "demo checkout/bf16"
INSTANCE = Instance(
    id="1" * 32,
    engine="echo",
    version="1",
    device="cpu",
    context_length=8192,
    slots=4,
    capabilities=Capabilities(sampling=["temperature"], guides=["json_schema"]),
)


def etcd_keys() -> dict[str, bytes]:
    return {k["key"]: convert(k["value"], bytes) for k in load_raw("discovery_etcd")["keys"]}


def card(name: str) -> Card:
    path = demo_gguf() if name == GGUF else demo_checkout()
    return read_model(find_model(str(path)), name, None).card()


@asynccontextmanager
async def _filled() -> AsyncIterator[MemoryStore]:
    """Returns a store with the registrations of the old workers."""
    store = MemoryStore()
    lease = await store.grant(60)
    for key, value in etcd_keys().items():
        await store.put(key, value, lease)
    yield store


@asynccontextmanager
async def _ingress(discovery: Discovery) -> AsyncIterator[Ingress]:
    async with listen("127.0.0.1") as responses:
        planes = Planes(discovery, MemoryRequests(), responses)
        made = ingress(
            ADDRESS, planes, make_router=lambda: make_router("random"), migration_limit=3
        )
        async with made as found:
            yield found


def test_an_ingress_serves_the_models_of_old_workers_in_etcd() -> None:
    async def body() -> None:
        async with _filled() as store, open_memory(store) as discovery, _ingress(discovery) as it:
            await until(lambda: len(it.models) == 2)
            assert set(it.models) == {GGUF, CHECKOUT}
            for name, model in it.models.items():
                assert model.backend.instance_classes
                assert identify(model.card) == identify(card(name))
            instance = it.models[GGUF].backend.instance
            assert instance is not None
            assert (instance.engine, instance.context_length, instance.slots) == (
                "llama_cpp",
                512,
                2,
            )

    asyncio.run(body())


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Writes the recorded folder, and locks it as its owner does."""
    path.mkdir(mode=0o700)
    locked = []
    for file in load_raw("discovery_file")["files"]:
        target = path / file["file"]
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(convert(file["base64"], bytes))
        if file["file"].endswith(".alive"):
            locked.append(target.open("rb"))
            fcntl.flock(locked[-1], fcntl.LOCK_EX)
    try:
        yield
    finally:
        for stream in locked:
            stream.close()


def test_an_ingress_serves_the_model_of_an_old_worker_in_a_folder(tmp_path: Path) -> None:
    async def body() -> None:
        with _folder(tmp_path / "discovery"):
            async with open_file(tmp_path / "discovery") as discovery, _ingress(discovery) as it:
                await until(lambda: GGUF in it.models)
                assert it.models[GGUF].backend.instance_classes

    asyncio.run(body())


@pytest.mark.parametrize("name", [GGUF, CHECKOUT])
def test_a_worker_claims_the_name_beside_an_old_one(name: str) -> None:
    """The store compares claims byte by byte."""
    key = identity_key(ADDRESS.namespace, name)
    [recorded] = [value for k, value in etcd_keys().items() if k.startswith(f"{key}/")]
    assert msgpack.encode(identify(card(name))) == recorded


class _Server:
    reach = Dialable(["192.0.2.1:7000"], "127.0.0.1:7001")
    key = "ab" * 32


async def _registered(discovery: Discovery, name: str) -> InstanceRecord:
    server: Any = _Server()
    async with registered(discovery, ADDRESS, card(name), server) as record:
        made = record(INSTANCE)
        await discovery.put(instance_key(ADDRESS, INSTANCE.id), msgpack.encode(made))
    return made


@pytest.mark.parametrize("name", [GGUF, CHECKOUT])
def test_an_old_ingress_reads_what_a_worker_registers(name: str) -> None:
    async def body() -> None:
        async with _filled() as store, open_memory(store) as discovery:
            before = set(etcd_keys())
            made = await _registered(discovery, name)
            after = await discovery.read("/dynemo/")
            new = {key: value for key, value in after.items() if key not in before}
            read = {key: protocol_1.read_stored(key, value) for key, value in after.items()}
            kinds = {key: type(read[key]).__name__ for key in new}
            assert set(kinds.values()) <= {"CardIdentity", "_Wire", "Record"}
            record = read[instance_key(ADDRESS, INSTANCE.id)]
            assert isinstance(record, protocol_1.Record)
            for field in record.__struct_fields__:
                if field != "instance":
                    assert getattr(record, field) == getattr(made, field)
            assert record.instance.capabilities.guides == ["json_schema"]
            stored = read[f"/dynemo/blobs/{made.card}/00000000"]
            recorded = next(
                value
                for key, value in etcd_keys().items()
                if key.startswith("/dynemo/blobs/") and protocol_1.read_card(value).name == name
            )
            assert stored == protocol_1.read_card(recorded)

    asyncio.run(body())


def test_the_files_of_a_lease_are_as_before(tmp_path: Path) -> None:
    path = tmp_path / "discovery"

    async def body() -> dict[str, bytes]:
        async with open_file(path) as discovery:
            await _registered(discovery, GGUF)
            return {file.name: file.read_bytes() for file in (path / NAME).glob("*/*")}

    written = asyncio.run(body())
    recorded = [Path(file["file"]).name for file in load_raw("discovery_file")["files"]]
    instance = instance_key(ADDRESS, INSTANCE.id)
    read = []
    for name, data in written.items():
        if name != ".alive":
            key, _, value = data.partition(b"\n")
            read.append(protocol_1.read_stored(key.decode(), value))
            # The name of a file is the hash of its key.
            assert name in recorded or key.decode() != instance
    assert {type(value).__name__ for value in read} == {"CardIdentity", "_Wire", "Record"}
    assert written[".alive"] in (b"10 owned", b"60 shared")
