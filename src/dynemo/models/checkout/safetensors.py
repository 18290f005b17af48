"""Checks whether a safetensors file is complete, without reading its tensors.

The file starts with a length of 8 bytes and a JSON header of that length. The header says where
each tensor ends in the rest of the file.
"""

from pathlib import Path

from msgspec import DecodeError, Struct

from dynemo.errors import ModelError
from dynemo.foreign import decode_json
from dynemo.models.file_type import SNIFF_BYTES, FileType, advice_for, file_type_of
from dynemo.models.files import open_model_file


class _Tensor(Struct):
    #: Start and end, counted from the end of the header. The metadata entry has none.
    data_offsets: tuple[int, int] = (0, 0)


def check_whole(path: Path) -> None:
    """Raises ModelError if the file is truncated, or is not a safetensors file."""
    try:
        with open_model_file(path) as file:
            start = file.read(SNIFF_BYTES)
            file_type = file_type_of(start)
            if file_type is not FileType.SAFETENSORS:
                advice = (
                    advice_for(file_type)
                    if file_type is FileType.LFS_POINTER
                    else "Download it again."
                )
                raise ModelError(f'"{path}" is {file_type}, not a safetensors file. {advice}')
            length = int.from_bytes(start[:8], "little")
            file.seek(8)
            header = file.read(length)
            size = file.seek(0, 2)
    except OSError as error:
        raise ModelError(f'"{path}" cannot be read: {error.strerror or error}.') from None
    needed = 8 + length
    if len(header) == length:
        needed += _end_of_tensors(path, header)
    if size < needed:
        raise ModelError(
            f'"{path}" is truncated: it needs {needed:,} bytes, but has {size:,}. Download it '
            "again."
        )


def _end_of_tensors(path: Path, header: bytes) -> int:
    try:
        tensors = decode_json(header, dict[str, _Tensor])
    except DecodeError as error:
        raise ModelError(f'"{path}" has a broken header ({error}). Download it again.') from None
    if any(not 0 <= start <= end for start, end in (t.data_offsets for t in tensors.values())):
        raise ModelError(f'"{path}" has a tensor that ends before it starts. Download it again.')
    return max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
