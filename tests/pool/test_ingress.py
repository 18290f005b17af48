"""An ingress leaves out records that it cannot use yet, and records that it never can."""

import asyncio
import gc
from contextlib import AsyncExitStack
from pathlib import Path
from weakref import ref

import pytest
from msgspec import msgpack

from dynemo.errors import Unavailable
from dynemo.messages.records import InstanceRecord, Load
from dynemo.messages.wire import Envelope
from dynemo.models.find import find_model
from dynemo.models.load import read_model
from dynemo.planes.discovery.base import instance_key
from dynemo.planes.discovery.discovery import Discovery
from dynemo.planes.discovery.memory import MemoryStore, open_memory
from dynemo.planes.names import EndpointName, parse_name
from dynemo.planes.responses.listen import listen
from dynemo.prompt.card.wire import pack_card
from dynemo.router.router import make_router
from dynemo.serving import ingress as module
from dynemo.serving.ingress import Ingress, Planes, ingress
from support.records import make_record
from support.waiting import until

ADDRESS: EndpointName = parse_name("dyn://pool")


class NoRequests:
    max_request = 0
    trouble = ""

    async def ask(self, record: InstanceRecord, envelope: Envelope, timeout: float = 0) -> None:
        raise Unavailable("nobody is there")

    async def wait_until_up(self) -> None: ...

    async def load(self, record: InstanceRecord, timeout: float = 0) -> Load:
        raise Unavailable("nobody is there")


def _record(instance: str, card: str, identity: str = "same", model: str = "demo") -> bytes:
    return msgpack.encode(make_record(instance, model=model, identity=identity, card=card))


async def _enter(stack: AsyncExitStack) -> tuple[Ingress, Discovery]:
    store = MemoryStore()
    discovery = await stack.enter_async_context(open_memory(store))
    theirs = await stack.enter_async_context(open_memory(store))
    responses = await stack.enter_async_context(listen("127.0.0.1"))
    planes = Planes(discovery, NoRequests(), responses)
    made = ingress(ADDRESS, planes, make_router=lambda: make_router("random"), migration_limit=3)
    return await stack.enter_async_context(made), theirs


def test_a_late_card_and_an_invalid_record(demo: Path) -> None:
    card = pack_card(read_model(find_model(str(demo)), "demo", None).card())

    async def body() -> None:
        async with AsyncExitStack() as stack:
            found, theirs = await _enter(stack)
            digest = await theirs.put_blob(b"another")
            await theirs.put(instance_key(ADDRESS, "a"), b"no record")
            await theirs.put(instance_key(ADDRESS, "b"), _record("b", digest))
            await asyncio.sleep(0.1)
            assert not found.models
            digest = await theirs.put_blob(card)
            await theirs.put(instance_key(ADDRESS, "c"), _record("c", "0" * 64))
            await asyncio.sleep(0.1)
            await theirs.put(instance_key(ADDRESS, "c"), _record("c", digest))
            await asyncio.wait_for(found.appeared.wait(), 5)
            assert found.models["demo"].backend.trouble == ""

    asyncio.run(body())


def _messages(caplog: pytest.LogCaptureFixture, *texts: str) -> list[str]:
    lines = [record.getMessage() for record in caplog.records]
    return [line for line in lines if all(text in line for text in texts)]


def test_an_instance_of_a_later_release_is_left_out_and_logged_once(
    demo: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    card = pack_card(read_model(find_model(str(demo)), "demo", None).card())
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.02)

    async def body() -> None:
        async with AsyncExitStack() as stack:
            found, theirs = await _enter(stack)
            digest = await theirs.put_blob(card)
            strange = msgpack.decode(_record("strange" * 8, digest))
            strange["instance"]["capabilities"] = {"takes": "images"}
            later = {**msgpack.decode(_record("later" * 8, digest)), "oldest": 3, "newest": 4}
            both = msgpack.decode(_record("both" * 8, digest))
            both = {**both, "oldest": 1, "newest": 3, "region": "eu"}
            for record in (strange, later, both):
                key = instance_key(ADDRESS, record["instance"]["id"])
                await theirs.put(key, msgpack.encode(record))
            await asyncio.wait_for(found.appeared.wait(), 5)
            await asyncio.sleep(0.2)  # time for some retries
            [(instance, *_)] = found.models["demo"].backend.instances
            assert instance.id == "both" * 8

    asyncio.run(body())
    [undecodable] = _messages(caplog, "strange" * 8)
    assert "Invalid enum value 'images'" in undecodable
    assert "upgrade this ingress" in undecodable
    [left_out] = _messages(caplog, "later" * 8)
    assert "speaks protocol 3 to 4; the ingress speaks protocol 1. Upgrade the ingress." in left_out


def test_another_card_waits_until_the_last_of_the_first_has_gone(demo: Path) -> None:
    card = pack_card(read_model(find_model(str(demo)), "demo", None).card())

    async def body() -> None:
        async with AsyncExitStack() as stack:
            found, theirs = await _enter(stack)
            digest = await theirs.put_blob(card)
            await theirs.put(instance_key(ADDRESS, "a"), _record("a", digest))
            await asyncio.wait_for(found.appeared.wait(), 5)
            first = found.models["demo"]
            await theirs.put(instance_key(ADDRESS, "b"), _record("b", digest, "other"))
            await asyncio.sleep(0.2)
            assert found.models["demo"] is first
            await theirs.remove(instance_key(ADDRESS, "a"))
            await until(lambda: found.models["demo"] is not first)
            assert found.models["demo"].backend.trouble == ""

    asyncio.run(body())


def test_an_unused_card_is_forgotten_after_a_while(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = pack_card(read_model(find_model(str(demo)), "demo", None).card())
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.02)

    async def body() -> None:
        async with AsyncExitStack() as stack:
            found, theirs = await _enter(stack)
            digest = await theirs.put_blob(card)
            keys = {model: instance_key(ADDRESS, model) for model in ("one", "two")}
            for model, key in keys.items():
                await theirs.put(key, _record(model, digest, model=model))
            await until(lambda: len(found.models) == 2)
            tokenizers = {name: ref(it.card.tokenizer) for name, it in found.models.items()}

            await theirs.remove(keys["one"])
            await until(lambda: found.models["one"].backend.trouble == "no instances")
            await asyncio.sleep(0.1)
            await theirs.put(keys["one"], _record("one", digest, model="one"))
            await until(lambda: found.models["one"].backend.trouble == "")
            assert found.models["one"].card.tokenizer is tokenizers["one"]()

            monkeypatch.setattr(module, "_IDLE_SECONDS", 0.0)
            await asyncio.sleep(0.1)
            await theirs.remove(keys["one"])
            await until(lambda: list(found.models) == ["two"])
            gc.collect()
            assert tokenizers["one"]() is None

            await theirs.remove(keys["two"])
            await until(lambda: found.models["two"].backend.trouble == "no instances")
            await asyncio.sleep(0.1)
            assert found.models["two"].card.tokenizer is tokenizers["two"]()
            await theirs.put(keys["one"], _record("one", digest, model="one"))
            await until(lambda: list(found.models) == ["one"])

    asyncio.run(body())
