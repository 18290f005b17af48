"""Whether a safetensors file is whole: 8 bytes of length, so much JSON, then the tensors, of which
the JSON says where each ends. The tensors themselves are not read."""

from pathlib import Path

from msgspec import DecodeError, Struct, json

from dynemo.errors import ModelError
from dynemo.models.file_type import SNIFF_BYTES, FileType, advice_for, file_type_of


class _Tensor(Struct):
    #: Behind the header. The entry that describes the file has none.
    data_offsets: tuple[int, int] = (0, 0)


def check_whole(path: Path) -> None:
    """Raises ModelError for a file that is cut short, or none of this kind."""
    try:
        with path.open("rb") as file:
            start = file.read(SNIFF_BYTES)
            kind = file_type_of(start)
            if kind is not FileType.SAFETENSORS:
                advice = advice_for(kind) if kind is FileType.LFS_POINTER else "download it again"
                raise ModelError(f"{path} is {kind}, and no safetensors file: {advice}")
            length = int.from_bytes(start[:8], "little")
            file.seek(8)
            header = file.read(length)
            size = file.seek(0, 2)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from None
    needed = 8 + length
    if len(header) == length:
        needed += _end_of_tensors(path, header)
    if size < needed:
        raise ModelError(
            f"{path} is cut short: it needs {needed:,} bytes and has {size:,}; download it again"
        )


def _end_of_tensors(path: Path, header: bytes) -> int:
    try:
        tensors = json.decode(header, type=dict[str, _Tensor])
    except DecodeError as error:
        raise ModelError(f"the header of {path} is broken ({error}): download it again") from None
    return max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
