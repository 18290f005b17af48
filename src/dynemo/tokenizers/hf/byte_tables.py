"""The tables in a `tokenizer.json`, which the library does not give out, or slowly."""

from msgspec import DecodeError, Struct, ValidationError, json


class ByteLevelTables(Struct):
    """Of byte-level BPE: token -> id without added tokens, and the pairs in order."""

    vocab: dict[str, int]
    merges: list[str | tuple[str, str]]

    def merge_lines(self) -> list[str]:
        """`left right` each. A byte-level spelling holds no space, so that one can part the two."""
        return [merge if isinstance(merge, str) else " ".join(merge) for merge in self.merges]


class _File(Struct):
    model: ByteLevelTables


_decode = json.Decoder(_File).decode


def byte_level_tables(file: bytes) -> ByteLevelTables | None:
    """None for a file whose model has no such tables."""
    try:
        return _decode(file).model
    except (DecodeError, ValidationError):
        return None
