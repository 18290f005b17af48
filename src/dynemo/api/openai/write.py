"""Pieces of a chat to response bodies: events of a stream, or one completion.

A stream's chunks differ only in their delta. All bytes around it are made once a stream; a token
costs the escaping of its text and one join.
"""

from collections.abc import Sequence

import msgspec

from dynemo.api.dialect import AnswerHead
from dynemo.api.openai.types import (
    AnswerMessage,
    ChatCompletion,
    Choice,
    CompletionUsage,
    PromptTokensDetails,
)
from dynemo.messages.answer import Finish, FinishPiece, Piece, TextPiece, Usage

DONE = b"data: [DONE]\n\n"
CHAT_PREFIX = "chatcmpl-"  #: of every answer's id

_encode = msgspec.json.encode

_DELTA = b'"choices":[{"index":%d,"delta":'
_CONTENT = b'{"content":'
_ROLE = b'{"role":"assistant","content":"","refusal":null'
_FINISH = b'{},"logprobs":null,"finish_reason":%b}]'
_NO_USAGE = b',"usage":null'
#: Behind every content: without usage, and with usage in the last chunk.
_CONTENT_ENDS = tuple(
    b'},"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n" for usage in (b"", _NO_USAGE)
)


class ChunkWriter:
    """Writes one stream's events.

    Keeps what each token needs ready, and nothing else: it lives as long as the stream.
    """

    __slots__ = ("_content_end", "_contents", "_head", "_include_usage")

    def __init__(self, head: AnswerHead, *, include_usage: bool = False) -> None:
        self._head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,' % (
            _encode(CHAT_PREFIX + head.id),
            head.created,
            _encode(head.model),
        )
        self._include_usage = include_usage
        self._content_end = _CONTENT_ENDS[include_usage]
        self._contents = [self._delta(index) + _CONTENT for index in range(head.choices)]

    def open(self) -> bytes:
        """Writes the role of every choice, before the first piece."""
        indices = range(len(self._contents))
        return b"".join([self._delta(index) + _ROLE + self._content_end for index in indices])

    def write(self, pieces: Sequence[Piece]) -> bytes:
        parts: list[bytes] = []
        for piece in pieces:
            # The type first: nearly every piece is text, and `match` is several times slower.
            if type(piece) is TextPiece:
                if piece.text:
                    parts += (self._contents[piece.index], escape(piece.text), self._content_end)
            elif isinstance(piece, FinishPiece):
                parts.append(self._finish(piece.index, piece.finish))
        return b"".join(parts)

    def close(self, usage: Usage) -> bytes:
        """The usage, if the client asked for it, and the end."""
        if not self._include_usage:
            return DONE
        counts = _encode(write_usage(usage))
        return b"".join((self._head, b'"choices":[],"usage":', counts, b"}\n\n", DONE))

    def _finish(self, index: int, finish: Finish) -> bytes:
        usage = _NO_USAGE if self._include_usage else b""
        return b"".join((self._delta(index), _FINISH % _encode(finish.reason), usage, b"}\n\n"))

    def _delta(self, index: int) -> bytes:
        return self._head + _DELTA % index


class CompletionWriter:
    """Gathers the pieces of an answer that is sent whole."""

    def __init__(self, head: AnswerHead) -> None:
        self._head = head
        self._texts: list[list[str]] = [[] for _ in range(head.choices)]
        self._finishes: dict[int, Finish] = {}

    def open(self) -> bytes:
        return b""

    def write(self, pieces: Sequence[Piece]) -> bytes:
        for piece in pieces:
            match piece:
                case TextPiece(index, text):
                    self._texts[index].append(text)
                case FinishPiece(index, finish):
                    self._finishes[index] = finish
        return b""

    def close(self, usage: Usage) -> bytes:
        choices = [
            Choice(
                index=index,
                message=AnswerMessage(content="".join(texts)),
                finish_reason=self._finishes[index].reason,
            )
            for index, texts in enumerate(self._texts)
        ]
        return _encode(
            ChatCompletion(
                id=CHAT_PREFIX + self._head.id,
                created=self._head.created,
                model=self._head.model,
                choices=choices,
                usage=write_usage(usage),
            )
        )


def write_usage(usage: Usage) -> CompletionUsage:
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(usage.cached_tokens),
    )


def escape(text: str) -> bytes:
    """Text as a JSON string, safe for clients that split events as `str.splitlines` does."""
    encoded = _encode(text)
    if not text.isascii():
        encoded = (
            encoded.replace(b"\xe2\x80\xa8", b"\\u2028")
            .replace(b"\xe2\x80\xa9", b"\\u2029")
            .replace(b"\xc2\x85", b"\\u0085")
        )
    return encoded
