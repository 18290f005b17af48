"""Each release skips fields that a later release adds, and so does protocol 1."""

from typing import Any

import pytest
from msgspec import Struct, msgpack, structs

from dynemo.messages.answer import Delta, Finish, Scores
from dynemo.messages.records import Capabilities, Instance, InstanceRecord, Load, LoadReport
from dynemo.messages.request import Guide, Request, Sampling
from dynemo.messages.wire import EngineLoad, Envelope, Failure, FinalDelta, Greeting, Hello
from dynemo.prompt.card.identity import CardIdentity
from dynemo.serving.handler import _Head
from dynemo.tokenizers.source import GgufSource, HfSource
from support import protocol_1

INSTANCE = Instance(
    id="i",
    engine="e",
    version="1",
    device="cpu",
    context_length=8,
    slots=1,
    capabilities=Capabilities(sampling=["seed"], guides=["grammar"]),
)
REQUEST = Request(
    id="r",
    token_ids=[1],
    prompt="p",
    max_tokens=3,
    sampling=Sampling(seed=3, logit_bias={5: 1.0}),
    guide=Guide("grammar", "root ::= x"),
    messages=[{"role": "user", "content": "x"}],
)
IDENTITY = CardIdentity(**dict.fromkeys(CardIdentity.__struct_fields__, "a"))
#: Each kind of message, with its class in protocol 1.
TRAVELS: list[tuple[Struct, type[Struct]]] = [
    (Sampling(seed=3), protocol_1.Sampling),
    (Guide("json_schema", "{}"), protocol_1.Guide),
    (REQUEST, protocol_1.Request),
    (_Head("r", "trace"), protocol_1._Head),
    (Finish("stop", 1, 2, 0, 1, 7), protocol_1.Finish),
    (Delta([1], ["x"], None, 2, b"v"), protocol_1.Delta),
    (FinalDelta([1], [], Finish("stop", 1, 2), 0, b"", Load(1)), protocol_1.Ending),
    (Load(1, 2, 0.5), protocol_1.Load),
    (EngineLoad(1, 2, 0.5, 9), protocol_1.Load),
    (LoadReport(1, 2, 0.5, 9, 4, 1), protocol_1.Load),
    (Capabilities(takes="messages"), protocol_1.Capabilities),
    (INSTANCE, protocol_1.Instance),
    (Hello(1, INSTANCE), protocol_1.Hello),
    (Greeting(1, "i", b"k", b"a", 3), protocol_1.Greeting),
    (Envelope(key=b"k", addresses=["a"], stream=1, token=b"t", newest=3), protocol_1.Envelope),
    (Failure("EngineLost", "m", "p", "t", "engine_lost", 3), protocol_1.Failure),
    (
        InstanceRecord(
            instance=INSTANCE,
            namespace="n",
            component="c",
            endpoint="e",
            model="m",
            identity="a",
            card="b",
            host="h",
            started=0.0,
            pid=1,
            newest=3,
        ),
        protocol_1.Record,
    ),
    (IDENTITY, protocol_1.CardIdentity),
    (GgufSource({"a": 1}), protocol_1.GgufSource),
    (HfSource(b"{}", {}), protocol_1.HfSource),
]
IDS = [type(value).__name__ for value, _ in TRAVELS]


def _grown(value: Any) -> Any:
    """Returns a message of a later release: each struct has one more field or element."""
    if not isinstance(value, Struct):
        return value
    config = value.__struct_config__
    fields = {name: _grown(getattr(value, name)) for name in value.__struct_fields__}
    if config.array_like:
        return [*fields.values(), {"new": 1}]
    tag = {config.tag_field: config.tag} if config.tag_field else {}
    return {**tag, **fields, "new": [1, None]}


@pytest.mark.parametrize(("value", "_old"), TRAVELS, ids=IDS)
def test_fields_of_a_later_release_are_skipped(value: Struct, _old: type[Struct]) -> None:
    assert msgpack.decode(msgpack.encode(_grown(value)), type=type(value)) == value


def _is_within(old: Any, new: Any) -> bool:
    """Tells whether `new` contains all of `old`, maybe with more fields or elements."""
    if isinstance(old, dict):
        return all(name in new and _is_within(held, new[name]) for name, held in old.items())
    if isinstance(old, list):
        return len(old) <= len(new) and all(map(_is_within, old, new))
    return bool(old == new)


@pytest.mark.parametrize(("value", "old"), TRAVELS, ids=IDS)
def test_protocol_1_skips_new_fields(value: Struct, old: type[Struct]) -> None:
    body = msgpack.encode(value)
    read = msgpack.encode(msgpack.decode(body, type=old))
    assert _is_within(msgpack.decode(read, strict=False), msgpack.decode(body, strict=False))


def test_every_struct_of_the_wire_is_tested() -> None:
    from dynemo.messages import wire

    tested = {type(value) for value, _ in TRAVELS}
    defined = {v for v in vars(wire).values() if isinstance(v, type) and issubclass(v, Struct)}
    assert defined - {Struct, Scores} <= tested  # protocol 1 has no scores
    assert {Request, Sampling, Guide, InstanceRecord, Instance, Capabilities, Load} <= tested
    assert structs.fields(InstanceRecord)[-1].name == "newest"
