"""GGUF files: their metadata, and the messages for broken files."""

import struct
from pathlib import Path

import pytest

from dynemo.errors import ModelError
from dynemo.models.gguf import MAX_STRING, Gguf, read_gguf
from support.gguf_files import Tensor, tiny_model, unpack_vocabulary, write_gguf

TENSOR: Tensor = ("a", (2, 8), 0, bytes(64))
KEYS: dict[str, object] = {
    "general.architecture": "llama",
    "general.name": "A model",
    "llama.context_length": 4096,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["a", "b", "<|im_end|>"],
    "tokenizer.ggml.eos_token_id": 1,
}


def _refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_gguf(path)
    return str(caught.value)


def test_reads_values_of_each_type(tmp_path: Path) -> None:
    values: dict[str, object] = {
        "an int": 7,
        "a long": -1,
        "a float": 0.5,
        "a flag": True,
        "a text": "é文",
        "texts": ["a", "", "文"],
        "ints": [1, -2],
        "floats": [0.5, -1.0],
        "none": [],
    }
    gguf = read_gguf(write_gguf(tmp_path / "m.gguf", values))
    assert {key: gguf.metadata[key] for key in values} == values
    assert gguf.metadata["GGUF.tensor_count"] == 0


def test_bytes_that_are_no_utf8_survive(tmp_path: Path) -> None:
    text = b"\xff\xe6a".decode("utf-8", "surrogateescape")
    gguf = read_gguf(write_gguf(tmp_path / "m.gguf", {"texts": [text], "text": text}))
    assert gguf.metadata["texts"] == [text]
    assert gguf.metadata["text"] == text


def test_describes_the_model(tmp_path: Path) -> None:
    templates = {"tokenizer.chat_template": "plain", "tokenizer.chat_template.tool_use": "tools"}
    path = write_gguf(tmp_path / "m.gguf", KEYS | templates, [TENSOR, TENSOR])
    gguf = read_gguf(str(path))
    assert gguf.architecture == "llama"
    assert gguf.name == "A model"
    assert gguf.context_length == 4096
    assert gguf.has_weights
    assert gguf.tensor_count == 2
    assert gguf.size == path.stat().st_size
    assert gguf.chat_template == "plain"
    assert gguf.chat_templates == {"default": "plain", "tool_use": "tools"}
    assert gguf.special_ids.eos == 1
    assert gguf.special_ids.eog == {1, 2}
    assert gguf.parts == (path,)


def test_a_file_without_metadata(tmp_path: Path) -> None:
    gguf = read_gguf(write_gguf(tmp_path / "m.gguf", {}))
    assert gguf.architecture == ""
    assert gguf.name is None
    assert gguf.context_length is None
    assert gguf.chat_template is None
    assert gguf.chat_templates == {}
    assert not gguf.has_weights


def test_version_2_is_read(tmp_path: Path) -> None:
    assert read_gguf(write_gguf(tmp_path / "m.gguf", KEYS, version=2)).name == "A model"


def test_a_real_vocabulary(tmp_path: Path) -> None:
    gguf = read_gguf(unpack_vocabulary("phi-3", tmp_path))
    assert gguf.architecture == "phi3"
    assert not gguf.has_weights
    assert gguf.context_length == 4096
    assert gguf.chat_template is not None


def test_a_model_that_llama_cpp_serves(tmp_path: Path) -> None:
    gguf = read_gguf(tiny_model(tmp_path / "m.gguf", KEYS))
    assert gguf.tensor_count == 11


@pytest.mark.parametrize(
    ("data", "fragments"),
    [
        (b"", ["empty file", "Download it again"]),
        (b"<!DOCTYPE html><html>", ["web page", "download"]),
        (b"version https://git-lfs.github.com/spec/v1\n", ["Git LFS pointer", "git lfs pull"]),
        (b"PK\x03\x04" + bytes(60), ["zip archive"]),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", ["PyTorch"]),
        (b"lmgg" + bytes(60), ["GGML file from before GGUF"]),
        (b"\x1f\x8b\x08" + bytes(60), ["gzip"]),
        (struct.pack("<Q", 20) + b'{"a": {"dtype": "F32"}}', ["safetensors"]),
        (b"hello there\n", ["text file"]),
        (bytes(64), ["zeros"]),
    ],
)
def test_another_type_of_file(data: bytes, fragments: list[str], tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    refusal = _refusal(path)
    assert str(path) in refusal
    assert "not a GGUF file" in refusal
    for fragment in fragments:
        assert fragment in refusal


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "does not exist" in _refusal(tmp_path / "none.gguf")
    assert "is a folder" in _refusal(tmp_path)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (1, "version 1"),
        (3 << 24, "big-endian"),
        (4, "knows only versions 2 and 3"),
    ],
)
def test_other_versions(version: int, message: str, tmp_path: Path) -> None:
    assert message in _refusal(write_gguf(tmp_path / "m.gguf", KEYS, version=version))


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf", KEYS, [TENSOR]).read_bytes()
    path = tmp_path / "m.gguf"
    for length in range(4, len(whole), 3):
        path.write_bytes(whole[:length])
        refusal = _refusal(path)
        assert "truncated" in refusal, length
        assert "again" in refusal


def test_a_cut_in_the_weights_says_how_much_is_there(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", KEYS, [TENSOR, TENSOR])
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 1)
    assert f"need {size:,} bytes, but it has {size - 1:,}" in _refusal(path)


def test_tensors_of_a_type_from_the_future_are_not_measured(tmp_path: Path) -> None:
    newer: Tensor = ("a", (1 << 20,), 999, b"")
    assert read_gguf(write_gguf(tmp_path / "m.gguf", KEYS, [newer])).tensor_count == 1


def _replaced(path: Path, at: int, data: bytes) -> Path:
    whole = bytearray(path.read_bytes())
    whole[at : at + len(data)] = data
    path.write_bytes(whole)
    return path


HUGE = struct.pack("<Q", 1 << 62)


@pytest.mark.parametrize(
    ("at", "data", "message"),
    [
        (8, HUGE, "tensors"),
        (16, HUGE, "keys"),
        (24, HUGE, "a string of"),
        (24, struct.pack("<Q", MAX_STRING), "truncated"),
        # The type of the only value, then its length as an array.
        (24 + 8 + 4, struct.pack("<I", 77), "the unknown type 77"),
        (24 + 8 + 4 + 4, struct.pack("<I", 77), "an array of the unknown type 77"),
        (24 + 8 + 4 + 4 + 4, HUGE, "truncated"),
        (24 + 8 + 4 + 4 + 4 + 8, HUGE, "a string of"),
        (24 + 8 + 4 + 4 + 4 + 8, struct.pack("<Q", 100_000), "truncated"),
    ],
)
def test_corrupt_lengths_allocate_nothing(
    at: int, data: bytes, message: str, tmp_path: Path
) -> None:
    path = _replaced(write_gguf(tmp_path / "m.gguf", {"list": ["a", "b"]}), at, data)
    assert message in _refusal(path)


def test_corrupt_dimensions_and_alignment(tmp_path: Path) -> None:
    many: Tensor = ("a", (1,) * 9, 0, bytes(4))
    assert "9 dimensions" in _refusal(write_gguf(tmp_path / "m.gguf", {}, [many]))
    odd = {"general.alignment": 33}
    assert "alignment 33" in _refusal(write_gguf(tmp_path / "m.gguf", odd, [TENSOR]))


def _split(folder: Path, count: int) -> list[Path]:
    return [
        write_gguf(
            folder / f"big-{number:05d}-of-{count:05d}.gguf",
            {"split.no": number - 1, "split.count": count, **(KEYS if number == 1 else {})},
            [TENSOR],
        )
        for number in range(1, count + 1)
    ]


def test_any_part_finds_the_whole_model(tmp_path: Path) -> None:
    parts = _split(tmp_path, 3)
    for part in parts:
        gguf = read_gguf(part)
        assert gguf.path == parts[0]
        assert gguf.parts == tuple(parts)
        assert gguf.name == "A model"
        assert gguf.tensor_count == 3
        assert gguf.metadata["GGUF.tensor_count"] == 3
        assert gguf.size == sum(path.stat().st_size for path in parts)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    parts = _split(tmp_path, 3)
    parts[1].unlink()
    refusal = _refusal(parts[2])
    assert "one of 3 parts" in refusal
    assert "big-00002-of-00003.gguf is missing" in refusal
    parts[2].unlink()
    assert "big-00002-of-00003.gguf and 1 more are missing" in _refusal(parts[0])


def test_a_broken_part_is_named(tmp_path: Path) -> None:
    parts = _split(tmp_path, 2)
    parts[1].write_bytes(parts[1].read_bytes()[:-1])
    refusal = _refusal(parts[0])
    assert parts[1].name in refusal
    assert "truncated" in refusal


def test_a_part_by_another_name(tmp_path: Path) -> None:
    part = _split(tmp_path, 2)[0]
    assert "its name does not say which" in _refusal(part.rename(tmp_path / "model.gguf"))


def test_a_gguf_is_a_value(tmp_path: Path) -> None:
    gguf = read_gguf(write_gguf(tmp_path / "m.gguf", KEYS))
    assert isinstance(gguf, Gguf)
    with pytest.raises(AttributeError):
        gguf.size = 0  # type: ignore[misc]
