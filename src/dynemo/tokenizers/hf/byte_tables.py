"""Reads the tables in a `tokenizer.json` that the `tokenizers` library hides, or returns slowly."""

from msgspec import DecodeError, Struct

from dynemo.foreign import json_decoder


class ByteLevelTables(Struct):
    """The tables of byte-level BPE: token -> id without added tokens, and the pairs in order."""

    vocab: dict[str, int]
    merges: list[str | tuple[str, str]]

    def merge_lines(self) -> list[str]:
        """Returns the merges as `left right` lines. A byte-level spelling never holds a space."""
        return [merge if isinstance(merge, str) else " ".join(merge) for merge in self.merges]


class _File(Struct):
    model: ByteLevelTables


_decode = json_decoder(_File)


def byte_level_tables(file: bytes) -> ByteLevelTables | None:
    """Returns the file's byte-level tables, or None if its model has none."""
    try:
        return _decode(file).model
    except DecodeError:
        return None
