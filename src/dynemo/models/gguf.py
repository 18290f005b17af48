"""GGUF files: metadata, chat templates and sizes, without the weights.

The format is that of ggml's `gguf.cpp`, versions 2 and 3, little-endian:

    "GGUF" | version u32 | tensors u64 | keys u64
    each key:    name, type u32, value      (a string is a u64 length and UTF-8)
    each tensor: name, dimensions u32, u64 each, type u32, offset u64
    padding to `general.alignment`, then the tensors' data

The file is mapped, not read, so the size of the weights does not matter. Every length is checked
against the rest of the file before memory of that length is allocated.
"""

import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dynemo.errors import ModelError
from dynemo.limits import GGUF_VALUES, MODEL_WHOLE
from dynemo.models.file_type import SNIFF_BYTES, FileType, advice_for, file_type_of
from dynemo.models.files import open_model_file
from dynemo.tokenizers.gguf.vocab import TENSOR_COUNT, SpecialIds, special_ids

#: A longer metadata string means a corrupt length: templates are under 100 kB.
MAX_STRING = 16 << 20
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 20
MAX_DIMENSIONS = 8
DEFAULT_ALIGNMENT = 32

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_COUNTS = struct.Struct("<QQ")
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: _U32,
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: _U64,
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}

# ggml's type number -> (values per block, bytes per block), from the type traits in ggml.c. The
# file size is not checked for types that are newer than this table.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 36), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip

_PART_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


@dataclass(frozen=True)
class Gguf:
    """The metadata of a GGUF model.

    `metadata` holds plain values: str, int, float, bool, and lists of these. Its `TENSOR_COUNT` is
    the header's count, under gguf-py's name. `parts` are the files in order; a model that is not
    split has one. An engine opens `path`, the first part.
    """

    path: Path
    parts: tuple[Path, ...]
    metadata: Mapping[str, object]
    tensor_count: int
    size: int

    @property
    def architecture(self) -> str:
        return self._text("general.architecture") or ""

    @property
    def name(self) -> str | None:
        return self._text("general.name")

    @property
    def context_length(self) -> int | None:
        """The context length in tokens that the model was trained for. Raises ModelError."""
        value = self.metadata.get(f"{self.architecture}.context_length")
        if not isinstance(value, int) or value <= 0:
            return None
        if value > MODEL_WHOLE:
            raise ModelError(
                f'"{self.path}" names a context of {value:,} tokens. Download it again.'
            )
        return value

    @property
    def has_weights(self) -> bool:
        """False if the file holds only a vocabulary."""
        return self.tensor_count > 0

    @property
    def chat_template(self) -> str | None:
        return self._text("tokenizer.chat_template")

    @property
    def chat_templates(self) -> dict[str, str]:
        """The named variants (`tool_use`, `rag`), and the plain template as `default`."""
        start = "tokenizer.chat_template."
        named = {
            key.removeprefix(start): value
            for key, value in self.metadata.items()
            if key.startswith(start) and isinstance(value, str)
        }
        plain = self.chat_template
        return named if plain is None else {"default": plain, **named}

    @cached_property
    def special_ids(self) -> SpecialIds:
        """BOS, EOS and the other ids that end a generation, as llama.cpp finds them.

        A loaded tokenizer has the same value. This one needs no tokenizer. Raises ModelError if the
        vocabulary is missing or broken.
        """
        return special_ids(self.metadata)

    def _text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) and value else None


def read_gguf(path: str | Path) -> Gguf:
    """Reads the model that `path` is, or is a part of.

    Raises ModelError if the file is missing, truncated, corrupt or of another type, or if a part of
    the model is missing.
    """
    first = _read_part(Path(path), is_named=True)
    count = first.metadata.get("split.count", 1)
    if not isinstance(count, int) or count <= 1:
        return first
    paths = _part_paths(Path(path), count)
    parts = [first if part == Path(path) else _read_part(part) for part in paths]
    tensors = sum(part.tensor_count for part in parts)
    return Gguf(
        path=paths[0],
        parts=tuple(paths),
        metadata={**parts[0].metadata, TENSOR_COUNT: tensors},
        tensor_count=tensors,
        size=sum(part.size for part in parts),
    )


def _part_paths(path: Path, count: int) -> list[Path]:
    match = _PART_NAME.fullmatch(path.name)
    if match is None or int(match["count"]) != count:
        raise ModelError(
            f'"{path}" is one of {count} parts of a model, but its name does not say which. '
            f"Rename the parts to NAME-00001-of-{count:05d}.gguf and so on."
        )
    paths = [
        path.with_name(f"{match['stem']}-{number:05d}-of-{count:05d}.gguf")
        for number in range(1, count + 1)
    ]
    missing = [part.name for part in paths if not part.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f'"{path}" is one of {count} parts of a model, but {missing[0]}{more} '
            f"{'are' if more else 'is'} missing. Put all parts into {path.parent or Path('.')}."
        )
    return paths


def _read_part(path: Path, *, is_named: bool = False) -> Gguf:
    with _mapped(path, is_named=is_named) as data:
        reader = _Reader(path, data)
        try:
            return reader.read()
        except (struct.error, IndexError):
            raise reader.truncated("inside its header") from None
        except UnicodeDecodeError:
            raise reader.corrupt("a key that is not UTF-8") from None


@contextmanager
def _mapped(path: Path, *, is_named: bool) -> Iterator[mmap.mmap]:
    with open_model_file(path, is_named=is_named) as file:
        file_type = file_type_of(file.read(SNIFF_BYTES))
        if file_type is not FileType.GGUF:
            raise ModelError(f'"{path}" is {file_type}, not a GGUF file. {advice_for(file_type)}')
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


class _Reader:
    """A position in a mapped file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.at = 4
        self.values = 0  #: of all arrays so far

    def truncated(self, where: str) -> ModelError:
        return ModelError(
            f'"{self.path}" is truncated: it ends {where} after {self.size:,} bytes. Download or '
            "copy it again."
        )

    def corrupt(self, what: str) -> ModelError:
        return ModelError(f'"{self.path}" is corrupt: it has {what}. Download or copy it again.')

    def read(self) -> Gguf:
        self._version()
        tensors, keys = _COUNTS.unpack_from(self.data, self.at)
        self.at += _COUNTS.size
        if keys > MAX_KEYS:
            raise self.corrupt(f"{keys:,} keys")
        if tensors > MAX_TENSORS:
            raise self.corrupt(f"{tensors:,} tensors")
        metadata: dict[str, object] = {TENSOR_COUNT: tensors}
        for _ in range(keys):
            key = self._string()
            metadata[key] = self._value(key, self._u32())
        self._tensors(tensors, metadata)
        return Gguf(
            path=self.path,
            parts=(self.path,),
            metadata=metadata,
            tensor_count=tensors,
            size=self.size,
        )

    def _version(self) -> None:
        version = self._u32()
        if version & 0xFFFF == 0:
            raise ModelError(
                f'"{self.path}" is a big-endian GGUF for other processors. Download the '
                "little-endian file of this model."
            )
        if version == 1:
            raise ModelError(
                f'"{self.path}" is a GGUF of version 1, which llama.cpp no longer reads. Convert '
                "the model again, or download a newer file."
            )
        if version not in (2, 3):
            raise ModelError(
                f'"{self.path}" is a GGUF of version {version}, but dynemo-run knows only '
                "versions 2 and 3. Update dynemo-run, or download another file of this model."
            )

    def _u32(self) -> int:
        (value,) = _U32.unpack_from(self.data, self.at)
        self.at += 4
        return int(value)

    def _string(self) -> str:
        (length,) = _U64.unpack_from(self.data, self.at)
        if length > MAX_STRING:
            raise self.corrupt(f"a string of {length:,} bytes at byte {self.at:,}")
        start = self.at + 8
        self.at = start + length
        if self.at > self.size:
            raise self.truncated("inside a string")
        # Vocabularies may hold bytes that are not UTF-8. They must survive unchanged.
        return self.data[start : self.at].decode("utf-8", "surrogateescape")

    def _value(self, key: str, value_type: int) -> object:
        if value_type == _STRING:
            return self._string()
        if value_type == _ARRAY:
            return self._array(key)
        scalar = _SCALARS.get(value_type)
        if scalar is None:
            raise self.corrupt(f'a value of the unknown type {value_type} under "{key}"')
        (value,) = scalar.unpack_from(self.data, self.at)
        self.at += scalar.size
        return value

    def _array(self, key: str) -> list[object]:
        value_type = self._u32()
        (count,) = _U64.unpack_from(self.data, self.at)
        self.at += 8
        scalar = _SCALARS.get(value_type)
        if scalar is None and value_type != _STRING:
            raise self.corrupt(f'an array of the unknown type {value_type} under "{key}"')
        least = 8 if scalar is None else scalar.size
        if count > (self.size - self.at) // least:
            raise self.truncated(f'inside the {count:,} values of "{key}"')
        self.values += count
        if self.values > GGUF_VALUES:
            raise self.corrupt(f'{count:,} values under "{key}"')
        if scalar is None:
            return self._strings(count)
        values = struct.unpack_from(f"<{count}{scalar.format[-1]}", self.data, self.at)
        self.at += count * scalar.size
        return list(values)

    def _strings(self, count: int) -> list[object]:
        # The hot loop of a load: a vocabulary and its merges are 400,000 strings.
        data, at, length_at = self.data, self.at, _U64.unpack_from
        values: list[object] = []
        append = values.append
        for _ in range(count):
            start = at + 8
            (length,) = length_at(data, at)
            if length > MAX_STRING:
                raise self.corrupt(f"a string of {length:,} bytes at byte {at:,}")
            at = start + length
            append(data[start:at].decode("utf-8", "surrogateescape"))
        if at > self.size:
            raise self.truncated("inside a string")
        self.at = at
        return values

    def _tensors(self, count: int, metadata: Mapping[str, object]) -> None:
        needed = 0
        for _ in range(count):
            self._string()
            dimensions = self._u32()
            if dimensions > MAX_DIMENSIONS:
                raise self.corrupt(f"a tensor of {dimensions:,} dimensions")
            values = 1
            for _ in range(dimensions):
                (extent,) = _U64.unpack_from(self.data, self.at)
                self.at += 8
                values *= extent
            tensor_type = self._u32()
            (offset,) = _U64.unpack_from(self.data, self.at)
            self.at += 8
            block, width = _BLOCKS.get(tensor_type, (0, 0))
            if block:
                needed = max(needed, offset + -(-values // block) * width)
        self._check_size(needed, metadata)

    def _check_size(self, needed: int, metadata: Mapping[str, object]) -> None:
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self.corrupt(f"the alignment {alignment!r}")
        start = -(-self.at // alignment) * alignment
        if needed and start + needed > self.size:
            raise ModelError(
                f'"{self.path}" is truncated: its tensors need {start + needed:,} bytes, but it '
                f"has {self.size:,}. Download or copy it again."
            )
