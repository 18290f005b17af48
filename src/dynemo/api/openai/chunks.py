"""An answer's pieces to response bodies: events of a stream, or one completion.

A stream's chunks differ only in their delta. All bytes around it are made once a stream; a token
costs the escaping of its text and one join.
"""

import msgspec

from dynemo.api.openai.types import (
    AnswerMessage,
    ChatCompletion,
    Choice,
    CompletionUsage,
    PromptTokensDetails,
)
from dynemo.errors import EngineError
from dynemo.messages import Finish, Piece

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.encode


class UsageCounter:
    """Counts an answer's tokens, and knows which choices have ended."""

    def __init__(self, prompt_tokens: int, n: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.finishes: list[Finish | None] = [None] * n
        self._seen = [0] * n

    def add(self, piece: Piece) -> int:
        """How many tokens are new. The engine's own count at the finish has the last word."""
        before = self._seen[piece.index]
        after = before + piece.tokens
        if piece.finish is not None:
            self.finishes[piece.index] = piece.finish
            after = max(before, piece.finish.completion_tokens)
        self._seen[piece.index] = after
        return after - before

    @property
    def is_complete(self) -> bool:
        """Whether every choice has ended."""
        return None not in self.finishes

    @property
    def completion_tokens(self) -> int:
        return sum(self._seen)

    @property
    def cached_tokens(self) -> int:
        """Of the prompt, found in the engine's cache; 0 until a choice has ended.

        The prompt counts once however many choices share it. What the first choice leaves in the
        cache is found there by the others: the least is what was there before the request.
        """
        return min((finish.cached_tokens for finish in self.finishes if finish), default=0)

    def finished(self) -> list[Finish]:
        """Raises EngineError where a choice has not ended: an answer without its end is broken."""
        finishes = [finish for finish in self.finishes if finish is not None]
        if len(finishes) < len(self.finishes):
            raise EngineError("The answer broke off before its end.")
        return finishes

    def usage(self) -> CompletionUsage:
        finishes = self.finished()
        completion = sum(finish.completion_tokens for finish in finishes)
        return CompletionUsage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=completion,
            total_tokens=self.prompt_tokens + completion,
            prompt_tokens_details=PromptTokensDetails(self.cached_tokens),
        )


_DELTA = b'"choices":[{"index":%d,"delta":'
_CONTENT = b'{"content":'
_ROLE = b'{"role":"assistant","content":"","refusal":null'
_FINISH = b'{},"logprobs":null,"finish_reason":%b}]'
_NO_USAGE = b',"usage":null'
#: Behind every content: where no usage is asked for, and where it comes in the last chunk.
_CONTENT_ENDS = tuple(
    b'},"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n" for usage in (b"", _NO_USAGE)
)


class ChunkWriter:
    """Writes one stream's events.

    Keeps what each token needs ready, and nothing else: it lives as long as the stream.
    """

    __slots__ = ("_content_end", "_contents", "_head", "_include_usage")

    def __init__(
        self, *, id: str, created: int, model: str, n: int = 1, include_usage: bool = False
    ) -> None:
        self._head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,' % (
            _encode(id),
            created,
            _encode(model),
        )
        self._include_usage = include_usage
        self._content_end = _CONTENT_ENDS[include_usage]
        self._contents = [self._delta(index) + _CONTENT for index in range(n)]

    def opening(self) -> bytes:
        """What comes before the first piece: the role of every choice."""
        indices = range(len(self._contents))
        return b"".join([self._delta(index) + _ROLE + self._content_end for index in indices])

    def piece(self, piece: Piece) -> bytes:
        """Empty where nothing is to be said yet, as when text is held back."""
        if piece.finish is None:
            if not piece.text:
                return b""
            content = escape(piece.text)
            return b"".join((self._contents[piece.index], content, self._content_end))
        usage = _NO_USAGE if self._include_usage else b""
        finish = _FINISH % _encode(piece.finish.reason)
        parts = [self._delta(piece.index), finish, usage, b"}\n\n"]
        if piece.text:
            parts[:0] = [self._contents[piece.index], escape(piece.text), self._content_end]
        return b"".join(parts)

    def _delta(self, index: int) -> bytes:
        return self._head + _DELTA % index

    def closing(self, usage: CompletionUsage) -> bytes:
        """The usage, if asked for, and the end."""
        if not self._include_usage:
            return DONE
        return b"".join((self._head, b'"choices":[],"usage":', _encode(usage), b"}\n\n", DONE))


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


class CompletionWriter:
    """Gathers the pieces of an answer that is sent whole."""

    def __init__(self, *, id: str, created: int, model: str, n: int = 1) -> None:
        self._id = id
        self._created = created
        self._model = model
        self._texts: list[list[str]] = [[] for _ in range(n)]

    def piece(self, piece: Piece) -> None:
        if piece.text:
            self._texts[piece.index].append(piece.text)

    def body(self, tally: UsageCounter) -> bytes:
        choices = [
            Choice(
                index=i,
                message=AnswerMessage(content="".join(texts)),
                finish_reason=finish.reason,
            )
            for i, (texts, finish) in enumerate(zip(self._texts, tally.finished(), strict=True))
        ]
        return _encode(
            ChatCompletion(
                id=self._id,
                created=self._created,
                model=self._model,
                choices=choices,
                usage=tally.usage(),
            )
        )
