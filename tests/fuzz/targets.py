"""The readers of foreign data that are fuzzed. Each must return, or raise an error of ours.

A target has a name, inputs to start from, words of its format, and the reader. Its corpus is the
folder of its name in `corpus/`: inputs that have once failed, kept for all later runs.
"""

import gzip
import json
import random
import tempfile
import zlib
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from msgspec import DecodeError, msgpack

from dynemo.api.dialects import DIALECTS
from dynemo.errors import DynemoError, RequestError, WireError
from dynemo.foreign import msgpack_decoder
from dynemo.http.openapi import build
from dynemo.messages.answer import Delta
from dynemo.messages.records import InstanceRecord
from dynemo.messages.request import Request
from dynemo.messages.wire import Envelope, FinalDelta, Greeting
from dynemo.models.checkout.read import read_checkout
from dynemo.models.checkout.safetensors import check_whole
from dynemo.models.find import demo_checkout, demo_gguf, find_model
from dynemo.models.gguf import read_gguf
from dynemo.models.load import read_model
from dynemo.prompt.card.wire import _MAGIC, VERSION, pack_card, unpack_card
from dynemo.prompt.template import ChatTemplate
from dynemo.wire.failures import decode_error
from dynemo.wire.frames import FrameKind, FrameReader, encode
from dynemo.wire.state import ConnectionState, Role, StreamState, connection_after, stream_after
from fuzz.mutate import json_body
from support.gguf_files import tiny_model
from support.records import make_record

#: What a reader may raise for a bad input.
ALLOWED = (DynemoError, DecodeError)

_TESTS = Path(__file__).parent.parent
CORPUS = Path(__file__).parent / "corpus"
_CARD_HEAD = _MAGIC + bytes([VERSION])


@dataclass(frozen=True)
class Target:
    name: str
    read: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    words: tuple[bytes, ...] = ()
    #: Makes an input of its own kind; else inputs are changed seeds.
    make: Callable[[random.Random], bytes] | None = None

    def corpus(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted((CORPUS / self.name).glob("*"))]


def _read_frames(data: bytes) -> None:
    """Reads frames as both ends of a connection do, and decodes their bodies."""
    frames = FrameReader().feed(data)
    for role in Role:
        connection, stream = ConnectionState.OPEN, StreamState.OPEN
        for frame in frames:
            with suppress(WireError):  # the frame is not due in this state
                if frame.stream == 0:
                    connection = connection_after(role, connection, frame)
                else:
                    stream = stream_after(role, connection, stream, frame)
    for frame in frames:
        _BODIES.get(frame.kind, bytes)(frame.body)


_BODIES: dict[int, Callable[[bytes], object]] = {
    FrameKind.HELLO: msgpack_decoder(Greeting),
    FrameKind.OPEN: msgpack_decoder(Envelope),
    FrameKind.REQUEST: msgpack_decoder(Request),
    FrameKind.DATA: msgpack_decoder(Delta),
    FrameKind.END: msgpack_decoder(FinalDelta),
    FrameKind.ERROR: decode_error,
}


def _frame_seeds() -> list[bytes]:
    """Returns the recorded frames of both sides of a connection."""
    found = [encode(FrameKind.DATA, 1, msgpack.encode(Delta([1, 2])))]
    for path in sorted((_TESTS / "wire" / "protocol_1").glob("*.json")):
        for text in _strings(json.loads(path.read_text(encoding="utf-8"))):
            with suppress(ValueError, *ALLOWED):  # other strings than frames
                data = b64decode(text, validate=True)
                _read_frames(data)
                found.append(data)
    assert len(found) > 100
    return found


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in _strings(part)]


def _record_seeds() -> list[bytes]:
    return [msgpack.encode(make_record("a"))]


def _in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    def reader(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            read(path)

    return reader


@cache
def _gguf_seeds() -> list[bytes]:
    """Returns a small file with a tokenizer and one layer of weights."""
    tokens = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a", "b", "<|end|>"]}
    with tempfile.TemporaryDirectory() as folder:
        return [tiny_model(Path(folder) / "a.gguf", tokens).read_bytes()]


def _safetensors_seeds() -> list[bytes]:
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    return [len(header).to_bytes(8, "little") + header + bytes(8)]


def _json_of(name: str) -> Callable[[], list[bytes]]:
    return lambda: [(demo_checkout() / name).read_bytes()]


def _checkout_with(name: str) -> Callable[[bytes], None]:
    """Reads the demo checkout with one file changed."""

    def reader(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for file in demo_checkout().iterdir():
                (Path(folder) / file.name).write_bytes(file.read_bytes())
            (Path(folder) / name).write_bytes(data)
            read_checkout(folder)

    return reader


def _read_card(data: bytes) -> None:
    """Reads a card's body as an ingress does, which first inflates it."""
    unpack_card(_CARD_HEAD + zlib.compress(data, 1))


@cache
def _card_seeds() -> list[bytes]:
    """Returns the bodies of the demo model's cards, from a GGUF and from a checkout."""
    cards = [
        read_model(find_model(str(path)), None, None).card()
        for path in (demo_gguf(), demo_checkout())
    ]
    return [zlib.decompress(pack_card(card)[len(_CARD_HEAD) :]) for card in cards]


_CHAT = [
    {"role": "system", "content": "a"},
    {"role": "user", "content": "b"},
    {"role": "assistant", "content": "c"},
    {"role": "user", "content": "d"},
]


def _render(data: bytes) -> None:
    template = ChatTemplate(data.decode(errors="replace"))
    with suppress(RequestError):  # some templates refuse this chat
        template.render(_CHAT)


def _template_seeds() -> list[bytes]:
    found = [
        path.read_bytes()
        for path in sorted((_TESTS / "fidelity" / "templates").rglob("*"))
        if path.is_file()
    ]
    assert found
    return [gzip.decompress(each) if each[:2] == b"\x1f\x8b" else each for each in found]


_TEMPLATE_WORDS = (
    b"{% for a in range(100000) %}", b"{% endfor %}", b"{% if a %}", b"{% else %}", b"{% endif %}",
    b"{% set a = ", b"%}", b"{{", b"}}", b"|tojson", b" * 10 ** 9", b"'a'", b"[", b"(", b"~",
    b"|join", b"{% macro a() %}", b"{{ a() }}", b"{% endmacro %}", b"messages", b"|string", b".a",
    b"loop.index", b"{% break %}", b"namespace()", b"raise_exception('a')", b"|list", b"is defined",
)  # fmt: skip


@cache
def _operations() -> list[tuple[Callable[[bytes], object], Any]]:
    """Returns the reader and the schema of each operation's body."""
    paths = build()["paths"]
    found: list[tuple[Callable[[bytes], object], Any]] = []
    for dialect in DIALECTS:
        for path, operation in dialect.operations.items():
            content = paths[path]["post"]["requestBody"]["content"]["application/json"]
            found.append((operation.read, content["schema"]))
    return found


def _read_bodies(data: bytes) -> None:
    for read, _ in _operations():
        try:
            read(data)
        except ALLOWED:
            continue


def _body_seeds() -> list[bytes]:
    return [
        json.dumps({"messages": _CHAT, "stream": True, "max_tokens": 5}).encode(),
        b'{"input": ["a", "b"]}',
    ]


def _make_body(chance: random.Random) -> bytes:
    _, schema = chance.choice(_operations())
    return json_body(schema, _schemas(), chance)


@cache
def _schemas() -> Any:
    return build()["components"]["schemas"]


_JSON_WORDS = (b"[", b'{"a":', b"1e999", b"-1", b"null")
_MSGPACK_WORDS = (b"\x91", b"\x81\xa1a", b"\xdc\xff\xff", b"\xdf\xff\xff\xff\xff")
_GGUF_WORDS = (b"\x09\x00\x00\x00", b"GGUF", b"\xff\xff\xff\xff\xff\xff\xff\x7f")


def _file_target(name: str) -> Target:
    """One JSON file of a checkout."""
    return Target(name, _checkout_with(name), _json_of(name), _JSON_WORDS)


TARGETS = (
    Target("frames", _read_frames, _frame_seeds, _MSGPACK_WORDS),
    Target("records", msgpack_decoder(InstanceRecord), _record_seeds, _MSGPACK_WORDS),
    Target("card", _read_card, _card_seeds, _MSGPACK_WORDS),
    Target("gguf", _in_file("a.gguf", read_gguf), _gguf_seeds, _GGUF_WORDS),
    Target("safetensors", _in_file("a.safetensors", check_whole), _safetensors_seeds, _JSON_WORDS),
    _file_target("config.json"),
    _file_target("generation_config.json"),
    _file_target("tokenizer_config.json"),
    Target("template", _render, _template_seeds, _TEMPLATE_WORDS),
    Target("body", _read_bodies, _body_seeds, _JSON_WORDS, _make_body),
)
