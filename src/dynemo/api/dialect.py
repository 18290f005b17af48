"""The port of a dialect: the paths of one API, and pure functions that read, write and fail.

A dialect reads a body into a `Call`, whose writer turns pieces into bytes. It never awaits: the
endpoint in `http/` is the same for all dialects, and knows none of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dynemo.errors import DynemoError
from dynemo.messages.answer import Piece, Usage
from dynemo.messages.ask import Ask


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """The facts about an answer that are known before its first piece."""

    id: str  #: of the job, hex; a dialect puts its own prefix before it
    created: int  #: unix seconds
    model: str
    choices: int
    prompt_tokens: int = 0


class Writer(Protocol):
    """Writes one answer. For a stream every result is sent at once. For a whole answer the first
    two are empty, and `close` gives the body."""

    def open(self) -> bytes:
        """Gives the bytes before the first piece."""
        ...

    def write(self, pieces: Sequence[Piece]) -> bytes:
        """Empty if there is nothing to send yet, as while text is held back."""
        ...

    def close(self, usage: Usage) -> bytes:
        """Gives the bytes after the last piece."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """A body, read. `is_stream`: the answer is sent as events while it grows."""

    ask: Ask
    is_stream: bool
    writer: Callable[[AnswerHead], Writer]
    #: What this body calls a field of `Ask`; it goes before `Operation.fields`.
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """A path that takes POST and is answered by a model. The types are for `/openapi.json`."""

    id: str  #: in `/openapi.json`
    name: str  #: in the log
    summary: str
    read: Callable[[bytes], Call]  #: raises RequestError
    request: type
    response: type
    event: type | None = None  #: the data of a stream's events, if the operation streams
    id_prefix: str = ""  #: of the answer's id
    #: What the body calls a field of `Ask` that has another name there. Errors then name it so.
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One served model, as a lookup shows it."""

    name: str
    created: int  #: unix seconds
    context_length: int


@dataclass(frozen=True, slots=True)
class Lookup:
    """A path that takes GET and shows what is served, without asking a model.

    `answer` gets the served models and the rest of the path; it gives the body. It raises
    RequestError.
    """

    id: str  #: in `/openapi.json`
    summary: str
    answer: Callable[[Sequence[ModelEntry], str], bytes]
    response: type


@dataclass(frozen=True, slots=True)
class Dialect:
    name: str  #: in `/openapi.json`
    prefix: str  #: of its paths; an error under it is written in this dialect
    operations: Mapping[str, Operation]  #: by path
    lookups: Mapping[str, Lookup]  #: by path; a path that ends in a slash covers those below it
    fail: Callable[[DynemoError], bytes]  #: the body of an error
    fail_stream: Callable[[DynemoError], bytes]  #: an error as the last event of a stream
    error: type  #: the type that `fail` writes
    stream_type: str = "text/event-stream; charset=utf-8"  #: the content type of its streams
