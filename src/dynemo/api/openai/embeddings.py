"""`POST /v1/embeddings`: a body to what is to be embedded, and vectors to a body."""

import base64
from array import array
from collections.abc import Sequence
from sys import byteorder
from typing import Any

from msgspec import ValidationError, convert, json

from dynemo.api.openai.decode import decode_embeddings
from dynemo.api.openai.types import Embedding, EmbeddingList, EmbeddingRequest, EmbeddingUsage
from dynemo.errors import RequestError, UnsupportedField

Input = str | list[int]
MAX_INPUTS = 2048
_FORMS = (list[str], list[int], list[list[int]])


def read_embeddings(body: bytes) -> tuple[EmbeddingRequest, list[Input]]:
    """The request, and each text or prompt of token ids in it. Raises RequestError."""
    asked = decode_embeddings(body)
    if asked.dimensions is not None:
        raise UnsupportedField("'dimensions' is not supported yet.", param="dimensions")
    inputs = _inputs(asked.input)
    if not 1 <= len(inputs) <= MAX_INPUTS:
        raise RequestError(f"'input' takes 1 to {MAX_INPUTS} texts.", param="input")
    if not all(inputs):
        raise RequestError("'input' must not hold an empty text.", param="input")
    return asked, inputs


def _inputs(value: str | list[Any]) -> list[Input]:
    if isinstance(value, str):
        return [value]
    for form in _FORMS:
        try:
            read: Any = convert(value, form)
        except ValidationError:
            continue
        return [read] if form == list[int] and read else list(read)
    raise RequestError(
        "Invalid 'input': expected a text, texts, token ids, or lists of token ids.",
        param="input",
        code="invalid_value",
    )


def write_embeddings(
    model: str, vectors: Sequence[bytes], prompt_tokens: int, *, is_base64: bool
) -> bytes:
    """The response body; each vector is 32-bit floats, little-endian."""
    data = [
        Embedding(index=i, embedding=_base64(vector) if is_base64 else _floats(vector))
        for i, vector in enumerate(vectors)
    ]
    usage = EmbeddingUsage(prompt_tokens=prompt_tokens, total_tokens=prompt_tokens)
    return json.encode(EmbeddingList(data=data, model=model, usage=usage))


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def _floats(vector: bytes) -> list[float]:
    floats = array("f", vector)
    if byteorder == "big":
        floats.byteswap()
    return floats.tolist()
