"""The merges in a `tokenizer.json`, which the library does not give out."""

from msgspec import DecodeError, Struct, ValidationError, json


class _Model(Struct):
    merges: list[str | tuple[str, str]] = []


class _File(Struct):
    model: _Model


_decode = json.Decoder(_File).decode


def byte_level_merges(file: bytes) -> list[str] | None:
    """`left right`, in order; None where the file's model has no such list.

    A byte-level spelling holds no space, so that one can part the two.
    """
    try:
        merges = _decode(file).model.merges
    except (DecodeError, ValidationError):
        return None
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
