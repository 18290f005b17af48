"""`POST /v1/embeddings`: a body to what is to be embedded, and vectors to a body."""

import base64
from array import array
from collections.abc import Sequence
from functools import partial
from sys import byteorder
from typing import Any

from msgspec import ValidationError, convert, json

from dynemo.api.dialect import AnswerHead, Call
from dynemo.api.openai.decode import decode
from dynemo.api.openai.types import Embedding, EmbeddingList, EmbeddingRequest, EmbeddingUsage
from dynemo.errors import EngineError, RequestError, UnsupportedField
from dynemo.limits import EMBEDDING_INPUTS
from dynemo.messages.answer import EmbeddingPiece, Piece, Usage
from dynemo.messages.ask import Ask

_FORMS = (list[str], list[int], list[list[int]])


def read_embeddings_call(body: bytes) -> Call:
    """Each text or prompt of token ids is a prompt of the ask. Raises RequestError."""
    asked = decode(body, EmbeddingRequest)
    if asked.dimensions is not None:
        raise UnsupportedField("'dimensions' is not supported yet.", param="dimensions")
    inputs = _inputs(asked.input)
    if not 1 <= len(inputs) <= EMBEDDING_INPUTS:
        raise RequestError(f"'input' takes 1 to {EMBEDDING_INPUTS} texts.", param="input")
    if not all(inputs):
        raise RequestError("'input' must not hold an empty text.", param="input")
    writer = partial(EmbeddingsWriter, is_base64=asked.encoding_format == "base64")
    ask = Ask(task="embed", model=asked.model, prompts=inputs, priority=asked.priority)
    return Call(ask, is_stream=False, writer=writer)


def _inputs(value: str | list[Any]) -> list[str | list[int]]:
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
        detail="invalid_value",
    )


class EmbeddingsWriter:
    """Gathers the vectors of one response."""

    def __init__(self, head: AnswerHead, *, is_base64: bool) -> None:
        self._model = head.model
        self._write = _base64 if is_base64 else _floats
        self._vectors: list[bytes] = [b""] * head.choices

    def open(self) -> bytes:
        return b""

    def write(self, pieces: Sequence[Piece]) -> bytes:
        for piece in pieces:
            if isinstance(piece, EmbeddingPiece):
                self._vectors[piece.index] = piece.vector
        return b""

    def close(self, usage: Usage) -> bytes:
        """Raises EngineError if a vector is missing."""
        if not all(self._vectors):
            raise EngineError("The engine gave no embedding.")
        data = [
            Embedding(index=index, embedding=self._write(vector))
            for index, vector in enumerate(self._vectors)
        ]
        counts = EmbeddingUsage(prompt_tokens=usage.prompt_tokens, total_tokens=usage.prompt_tokens)
        return json.encode(EmbeddingList(data=data, model=self._model, usage=counts))


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def _floats(vector: bytes) -> list[float]:
    floats = array("f", vector)
    if byteorder == "big":
        floats.byteswap()
    return floats.tolist()
