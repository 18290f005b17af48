"""Detokenizers: the joined pieces equal decoding at once, and no character is torn."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynemo.tokenizers.base import Detokenizer
from dynemo.tokenizers.detokenize import ByteDetokenizer, FallbackDetokenizer, WindowDetokenizer
from dynemo.tokenizers.hf.tokenizer import HfTokenizer
from support.fidelity_data import FOLDER
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

Json = dict[str, Any]

CASES = [
    json.loads(line)
    for line in (FOLDER / "detok.jsonl").read_text(encoding="utf-8").split("\n")
    if line
]


@cache
def tokenizer(name: str) -> HfTokenizer:
    return HfTokenizer(FOLDER / f"tokenizer_{name}.json")


def windows(name: str) -> WindowDetokenizer:
    """Returns a window detokenizer over the library's own decoding."""
    backend = Backend.from_file(str(FOLDER / f"tokenizer_{name}.json"))
    special = {i for i, t in backend.get_added_tokens_decoder().items() if t.special}
    return WindowDetokenizer(backend.decode, lambda token_id: token_id not in special)


def stream(detokenizer: Detokenizer, ids: Sequence[int]) -> list[str]:
    return [*(detokenizer.feed([token_id]) for token_id in ids), detokenizer.flush()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_cases(case: Json) -> None:
    ids = case["ids"]
    assert tokenizer(case["tokenizer"]).decode(ids) == case["expected"]
    pieces = stream(tokenizer(case["tokenizer"]).detokenizer(), ids)
    allowed = {case["expected"]}
    if case["property"] == "relaxed":
        allowed.add(case["lossy_utf8_alternative"])
    assert "".join(pieces) in allowed
    at_once = tokenizer(case["tokenizer"]).detokenizer()
    assert at_once.feed(ids) + at_once.flush() == "".join(pieces)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c["property"] == "exact"], ids=lambda case: case["id"]
)
def test_cases_in_windows(case: Json) -> None:
    assert "".join(stream(windows(case["tokenizer"]), case["ids"])) == case["expected"]


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c["property"] == "exact" and c["id"] != "metaspace/fuzz_03"],
    ids=lambda case: case["id"],
)
def test_text_comes_as_soon_as_it_is_certain(case: Json) -> None:
    # In fuzz_03 a broken run of bytes precedes a valid one. From then on each run is held back.
    out, lengths = 0, []
    for piece in stream(tokenizer(case["tokenizer"]).detokenizer(), case["ids"])[:-1]:
        out += len(piece)
        lengths.append(out)
    assert all(a >= b for a, b in zip(lengths, case["chars_after"], strict=True))


@given(st.lists(st.integers(0, 4095), max_size=60))
def test_any_byte_level_stream_equals_decoding_at_once(ids: list[int]) -> None:
    model = tokenizer("byte_level")
    assert "".join(stream(model.detokenizer(), ids)) == model.decode(ids)


def _byte_ids() -> list[int]:
    model = tokenizer("metaspace")
    return [i for byte in range(256) if (i := model.token_id(f"<0x{byte:02X}>")) is not None]


@given(st.lists(st.one_of(st.integers(0, 2302), st.sampled_from(_byte_ids())), max_size=40))
def test_any_byte_fallback_stream_is_one_of_its_two_readings(ids: list[int]) -> None:
    model = tokenizer("metaspace")
    text = "".join(stream(model.detokenizer(), ids))
    assert text in (model.decode(ids), lossy(model, ids))


def lossy(model: HfTokenizer, ids: list[int]) -> str:
    """Decodes the whole stream's bytes as lossy UTF-8."""
    data = b""
    for token_id in ids:
        text = model.token_text(token_id) or ""
        if token_id in (0, 1, 2, 2300, 2301):
            continue
        is_byte = len(text) == 6 and text.startswith("<0x")
        data += bytes([int(text[3:5], 16)]) if is_byte else text.replace("▁", " ").encode()
    decoded = data.decode("utf-8", "replace")
    return decoded.removeprefix(" ")


@given(st.text(max_size=40))
def test_text_survives_in_both_vocabularies(text: str) -> None:
    for name in ("byte_level", "metaspace"):
        model = tokenizer(name)
        ids = model.encode(text, add_special=False, parse_special=False)
        assert "".join(stream(model.detokenizer(), ids)) == model.decode(ids)


def test_bytes() -> None:
    tokens = [b"a", b"", b"\xf0\x9f", b"\x98", b"\x80!", b"\xe2\x82", b"x", b"\xff", b"\xe2"]
    pieces = stream(ByteDetokenizer(tokens.__getitem__), range(len(tokens)))
    assert pieces == ["a", "", "", "", "😀!", "", "\ufffdx", "\ufffd", "", "\ufffd"]


@pytest.mark.parametrize(
    ("tokens", "pieces"),
    [
        pytest.param([" ", " a", " b"], ["", " a", " b", ""], id="one-leading-space-goes"),
        pytest.param(["", "  a"], ["", " a", ""], id="after-empty-text"),
        pytest.param([0x20, "a"], ["", "a", ""], id="a-space-spelled-in-bytes"),
        pytest.param([None, 0xC3, None, 0xA9], ["", "", "", "é", ""], id="over-control-tokens"),
        pytest.param([0xC3, "a"], ["", "\ufffda", ""], id="cut-by-text"),
        pytest.param([0xE2, 0x82, 0xE2, "a"], ["", "", "", "\ufffd\ufffd\ufffda", ""], id="run"),
        pytest.param([0xC3, 0xA9, 0xE2, 0x82, "a"], ["", "é", "", "", "\ufffda", ""], id="shown"),
        pytest.param([0xC3, 0xA9, 0xE2, 0x82], ["", "é", "", "", "\ufffd"], id="ends-cut"),
    ],
)
def test_byte_fallback(tokens: list[str | int | None], pieces: list[str]) -> None:
    detokenizer = FallbackDetokenizer(tokens.__getitem__, strip=1)
    assert stream(detokenizer, range(len(tokens))) == pieces


def wordpiece() -> Backend:
    words = ["hello", "##ish", "world", ",", "[SEP]"]
    backend = Backend(models.WordPiece(dict(zip(words, range(5), strict=True)), unk_token="[SEP]"))
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(["[SEP]"])
    return backend


def suffixed() -> Backend:
    vocab = {"he": 0, "llo</w>": 1, "world</w>": 2}
    backend = Backend(models.BPE(vocab, [], end_of_word_suffix="</w>"))
    backend.decoder = decoders.BPEDecoder()
    return backend


def undecoded() -> Backend:
    return Backend(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a"))


def metaspace() -> Backend:
    backend = Backend(models.WordLevel({"▁a": 0, "▁": 1, "b": 2}, unk_token="▁a"))
    backend.decoder = decoders.Metaspace()
    return backend


@pytest.mark.parametrize("make", [wordpiece, suffixed, undecoded, metaspace])
@given(data=st.data())
def test_other_decoders_go_by_windows(
    make: Callable[[], Backend], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    make().save(str(file))
    model = HfTokenizer(file)
    ids = data.draw(st.lists(st.integers(0, model.vocab_size - 1), max_size=12))
    detokenizer = model.detokenizer()
    assert isinstance(detokenizer, WindowDetokenizer)
    assert "".join(stream(detokenizer, ids)) == model.decode(ids)


@pytest.mark.parametrize("name", ["byte_level", "metaspace"])
def test_control_tokens_that_are_shown(name: str) -> None:
    model = tokenizer(name)
    names = ["<s>", "</s>"] if name == "metaspace" else ["<|begin_of_text|>", "<|eot_id|>"]
    first, second = (model.token_id(text) for text in names)
    assert first is not None
    assert second is not None
    words = model.encode("naïve", add_special=False, parse_special=False)
    ids = [first, *words, second, *words, first]
    hidden = "".join(stream(model.detokenizer(), ids))
    shown = "".join(stream(model.detokenizer([second]), ids))
    assert names[1] in shown
    assert names[0] not in shown
    assert shown.replace(names[1], "") == hidden == model.decode(ids)


def test_control_tokens_that_are_shown_in_windows(tmp_path: Path) -> None:
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    model = HfTokenizer(tmp_path / "tokenizer.json")
    pieces = stream(model.detokenizer([4]), [0, 4, 1, 2, 4])
    assert pieces == ["hello", "[SEP]", "ish", " world", "[SEP]", ""]


def test_a_window_does_not_grow_without_end() -> None:
    longest = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return "\ufffd" * len(ids)

    pieces = stream(WindowDetokenizer(decode, lambda _: True), range(1000))
    assert "".join(pieces) == "\ufffd" * 1000
    assert longest <= 128
