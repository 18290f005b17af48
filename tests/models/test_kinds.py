"""Kinds of files, told by their first bytes."""

import gzip
import io
import json
import pickle
import struct
import zipfile

import pytest

from dynemo.models.kinds import Kind, advice_for, kind_of


def _zip(entry: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(entry, b"x")
    return out.getvalue()


def _safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (b"", Kind.EMPTY),
        (b"GGUF\x03\0\0\0", Kind.GGUF),
        (LFS, Kind.LFS_POINTER),
        (_safetensors(), Kind.SAFETENSORS),
        (_zip("archive/data.pkl"), Kind.PYTORCH),
        (_zip("word/document.xml"), Kind.ZIP),
        (pickle.dumps({"w": 1}, protocol=2), Kind.PYTORCH),
        (pickle.dumps({"w": 1}, protocol=4), Kind.PYTORCH),
        (struct.pack("<I", 0x67676A74) + b"\1\0\0\0", Kind.OLD_GGML),
        (struct.pack("<I", 0x67676D6C) + b"\1\0\0\0", Kind.OLD_GGML),
        (gzip.compress(b"x"), Kind.GZIP),
        (b"\n<!DOCTYPE html><html>", Kind.HTML),
        (b'{"model_type": "llama"}', Kind.JSON),
        (b"[1, 2, 3", Kind.JSON),
        (b"{{ messages }}", Kind.TEXT),
        ("# Überschrift".encode()[:3], Kind.TEXT),
        (bytes(100), Kind.ZEROS),
        (b"\x7fELF\x02\x01\x01\x00", Kind.UNKNOWN),
        (b"\xff", Kind.UNKNOWN),
    ],
)
def test_a_kind_is_told(first: bytes, kind: Kind) -> None:
    assert kind_of(first) is kind
    assert advice_for(kind)
