import json
import struct
from pathlib import Path

import pytest

from dynemo.errors import ModelError
from dynemo.models.checkout.read import read_checkout
from dynemo.models.checkout.safetensors import check_whole
from dynemo.models.find import demo_checkout

HEADER = json.dumps(
    {
        "__metadata__": {"format": "pt"},
        "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    }
).encode()
WHOLE = struct.pack("<Q", len(HEADER)) + HEADER + bytes(24)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_a_whole_file(file: Path) -> None:
    file.write_bytes(WHOLE)
    check_whole(file)
    check_whole(demo_checkout() / "model.safetensors")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (WHOLE[:-1], f"it needs {len(WHOLE)} bytes, but has {len(WHOLE) - 1}. Download it again"),
        (WHOLE[:60], f"it needs {8 + len(HEADER)} bytes, but has 60. Download it again"),
        (b"", "is an empty file, not a safetensors file. Download it again"),
        (WHOLE[:5], "not a safetensors file. Download it again"),
        (bytes(1000), "starts with zeros, not a safetensors file. Download it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Run `git lfs pull` in its folder"),
        (WHOLE.replace(b'"a": {', b'"a": ['), "has a broken header"),
        (WHOLE.replace(b"[0, 8]", b"[0, x]"), "Download it again"),
    ],
)
def test_a_file_that_is_not(file: Path, data: bytes, message: str) -> None:
    file.write_bytes(data)
    with pytest.raises(ModelError) as caught:
        check_whole(file)
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


def test_a_link_to_nothing(file: Path) -> None:
    file.symlink_to("nowhere")
    with pytest.raises(ModelError, match="cannot be read"):
        check_whole(file)


def test_a_checkout_is_asked_for_every_file_that_its_index_names(tmp_path: Path) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in names:
        (tmp_path / name).write_bytes(WHOLE)
    (tmp_path / "consolidated.safetensors").write_bytes(WHOLE[:-1])  # it is never read
    read_checkout(tmp_path)
    (tmp_path / names[1]).write_bytes(WHOLE[:-1])
    with pytest.raises(ModelError, match=names[1]):
        read_checkout(tmp_path)
    read_checkout(tmp_path, needs_config=False)  # reads only the tokenizer


def test_without_an_index_every_file_is_asked(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(WHOLE)
    read_checkout(tmp_path)
    (tmp_path / "b.safetensors").write_bytes(WHOLE[:-1])
    with pytest.raises(ModelError, match=r'b\.safetensors" is truncated'):
        read_checkout(tmp_path)
