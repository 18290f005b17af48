"""Detection of file types by the first bytes."""

import gzip
import io
import json
import pickle
import struct
import zipfile

import pytest

from dynemo.models.file_type import FileType, advice_for, file_type_of


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
    ("first", "file_type"),
    [
        (b"", FileType.EMPTY),
        (b"GGUF\x03\0\0\0", FileType.GGUF),
        (LFS, FileType.LFS_POINTER),
        (_safetensors(), FileType.SAFETENSORS),
        (_zip("archive/data.pkl"), FileType.PYTORCH),
        (_zip("word/document.xml"), FileType.ZIP),
        (pickle.dumps({"w": 1}, protocol=2), FileType.PYTORCH),
        (pickle.dumps({"w": 1}, protocol=4), FileType.PYTORCH),
        (struct.pack("<I", 0x67676A74) + b"\1\0\0\0", FileType.OLD_GGML),
        (struct.pack("<I", 0x67676D6C) + b"\1\0\0\0", FileType.OLD_GGML),
        (gzip.compress(b"x", mtime=0), FileType.GZIP),
        (b"\n<!DOCTYPE html><html>", FileType.HTML),
        (b'{"model_type": "llama"}', FileType.JSON),
        (b"[1, 2, 3", FileType.JSON),
        (b"{{ messages }}", FileType.TEXT),
        ("# Überschrift".encode()[:3], FileType.TEXT),
        (bytes(100), FileType.ZEROS),
        (b"\x7fELF\x02\x01\x01\x00", FileType.UNKNOWN),
        (b"\xff", FileType.UNKNOWN),
    ],
)
def test_a_type_is_detected(first: bytes, file_type: FileType) -> None:
    assert file_type_of(first) is file_type
    assert advice_for(file_type)
