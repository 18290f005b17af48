"""Detects a file's type by its first bytes: names are often wrong, magic numbers rarely are.

It knows only the formats that people confuse with models, to explain the mistake.
"""

import struct
from enum import StrEnum

#: How many bytes `file_type_of` needs. It also accepts fewer or more.
SNIFF_BYTES = 512


class FileType(StrEnum):
    """A type of file. Its value completes a sentence that starts with "X is"."""

    GGUF = "a GGUF file"
    EMPTY = "an empty file"
    LFS_POINTER = "a Git LFS pointer, not the file that it stands for"
    SAFETENSORS = "a safetensors file"
    PYTORCH = "a PyTorch file"
    OLD_GGML = "a GGML file from before GGUF"
    HDF5 = "an HDF5 file"
    GZIP = "a gzip archive"
    ZSTD = "a zstd archive"
    XZ = "an xz archive"
    ZIP = "a zip archive"
    HTML = "a web page"
    JSON = "a JSON file"
    TEXT = "a text file"
    ZEROS = "a file that starts with zeros"
    UNKNOWN = "a file of an unknown type"


# If one magic number starts with another, the longer one comes first.
_MAGIC = (
    (b"GGUF", FileType.GGUF),
    (b"version https://git-lfs", FileType.LFS_POINTER),
    (b"\x89HDF\r\n\x1a\n", FileType.HDF5),
    (b"\x1f\x8b", FileType.GZIP),
    (b"\x28\xb5\x2f\xfd", FileType.ZSTD),
    (b"\xfd7zXZ\x00", FileType.XZ),
    # Before GGUF the magic was a little-endian number, so its letters are reversed on disk.
    (b"lmgg", FileType.OLD_GGML),
    (b"fmgg", FileType.OLD_GGML),
    (b"tjgg", FileType.OLD_GGML),
    (b"algg", FileType.OLD_GGML),
    (b"ggml", FileType.OLD_GGML),
    (b"ggmf", FileType.OLD_GGML),
    (b"ggjt", FileType.OLD_GGML),
    (b"ggla", FileType.OLD_GGML),
    # torch.save before 1.6 starts with a pickle of its magic number.
    (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46", FileType.PYTORCH),
)

_ADVICE = {
    FileType.EMPTY: "Download it again.",
    FileType.LFS_POINTER: "Run `git lfs pull` in its folder.",
    FileType.SAFETENSORS: "Pass the folder that holds it and its config.json.",
    FileType.PYTORCH: "Convert it to GGUF or safetensors, or pass the Hub name of a converted one.",
    FileType.OLD_GGML: "Convert it with a current llama.cpp, or download the model as GGUF.",
    FileType.HDF5: "Convert it to GGUF or safetensors first.",
    FileType.GZIP: "Unpack it first.",
    FileType.ZSTD: "Unpack it first.",
    FileType.XZ: "Unpack it first.",
    FileType.ZIP: "Unpack it first.",
    FileType.HTML: "The download saved a web page instead of the model. Download it again.",
    FileType.JSON: "Pass the folder that holds it, or a GGUF file.",
    FileType.ZEROS: "The download was probably interrupted. Download it again.",
}


def file_type_of(first_bytes: bytes) -> FileType:
    """Returns the type of a file that starts with `first_bytes`. `SNIFF_BYTES` bytes are enough.

    It never raises. The returned `FileType` is a `str` that completes a sentence.
    """
    if not first_bytes:
        return FileType.EMPTY
    for magic, file_type in _MAGIC:
        if first_bytes.startswith(magic):
            return file_type
    if first_bytes.startswith(b"PK\x03\x04"):
        return _zip_type(first_bytes)
    if _is_safetensors(first_bytes):
        return FileType.SAFETENSORS
    if _is_pickle(first_bytes):
        return FileType.PYTORCH
    if not first_bytes.strip(b"\0"):
        return FileType.ZEROS
    return _text_type(first_bytes)


def advice_for(file_type: FileType) -> str:
    """Returns a sentence with the remedy for a file of this type that should have been a model."""
    return _ADVICE.get(
        file_type, "Pass a GGUF file, a folder with config.json, or a Hub name (org/repo)."
    )


def _zip_type(first_bytes: bytes) -> FileType:
    # torch.save writes an archive whose first entry is NAME/data.pkl, or NAME/version in older
    # versions.
    length = int.from_bytes(first_bytes[26:28], "little")
    entry = first_bytes[30 : 30 + length]
    torch_entries = (b"/data.pkl", b"/version", b"/.format_version", b"/.data/serialization_id")
    return FileType.PYTORCH if entry.endswith(torch_entries) else FileType.ZIP


def _is_safetensors(first_bytes: bytes) -> bool:
    # A 64-bit header length and then JSON of that length. The format itself limits the length.
    if len(first_bytes) < 9:
        return False
    (length,) = struct.unpack_from("<Q", first_bytes)
    return 2 <= length <= 100_000_000 and first_bytes[8:9] == b"{"


def _is_pickle(first_bytes: bytes) -> bool:
    # A protocol byte from 2 to 5, then an opcode that follows it in practice: a frame, a dict, a
    # list, a tuple mark, a global, a string or a number.
    if first_bytes[0] != 0x80 or len(first_bytes) < 3 or not 2 <= first_bytes[1] <= 5:
        return False
    return first_bytes[2:3] in b"\x95})](c\x8c\x8aXKJ"


def _text_type(first_bytes: bytes) -> FileType:
    # The bytes may end inside a character, so up to three bytes at the end are ignored.
    for cut in range(min(4, len(first_bytes))):
        try:
            text = first_bytes[: len(first_bytes) - cut].decode()
            break
        except UnicodeDecodeError:
            continue
    else:
        return FileType.UNKNOWN
    if any(ord(char) < 32 and char not in "\t\n\r\f\x1b" for char in text):
        return FileType.UNKNOWN
    start = text.lstrip("\ufeff \t\r\n").lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<!--", "<?xml")):
        return FileType.HTML
    return FileType.JSON if _looks_like_json(start) else FileType.TEXT


def _looks_like_json(start: str) -> bool:
    # The bytes may end anywhere, so only the first token inside counts.
    inner = start[1:].lstrip()[:1]
    if start[:1] == "{":
        return inner in ('"', "}", "")
    return start[:1] == "[" and (inner in ('"', "{", "[", "]", "-", "") or inner.isdigit())
