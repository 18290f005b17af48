"""Pieces of a chat to response bodies: events of a stream, or one completion.

A stream's chunks differ only in their delta. All bytes around it are made once a stream; a token
costs the escaping of its text and one join.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET

from dynemo.api.dialect import AnswerHead
from dynemo.api.openai.safe import escape, safe
from dynemo.api.openai.scores import RunningUsage, choice_scores, chunk_scores, prompt_scores
from dynemo.api.openai.tool_types import AnsweredCall, AnsweredFunction
from dynemo.api.openai.types import (
    AnswerMessage,
    ChatCompletion,
    Choice,
    CompletionTokensDetails,
    CompletionUsage,
    FinishReason,
    PromptTokensDetails,
)
from dynemo.messages.answer import (
    ArgumentsPiece,
    Finish,
    FinishPiece,
    Piece,
    PromptPiece,
    ReasoningPiece,
    TextPiece,
    TokenLogprob,
    ToolCallPiece,
    Usage,
)

DONE = b"data: [DONE]\n\n"
CHAT_PREFIX = "chatcmpl-"  #: of every answer's id

_encode = msgspec.json.encode

_DELTA = b'"choices":[{"index":%d,"delta":'
_CONTENT = b'{"content":'
_REASONING = b'{"reasoning_content":%b,"reasoning":%b'
_CALL = (
    b'{"tool_calls":[{"index":%d,"id":%b,"type":"function","function":{"name":%b,"arguments":""}}]'
)
_ARGUMENTS = b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]'
_OLDER_CALL = b'{"function_call":{"name":%b,"arguments":""}'
_OLDER_ARGUMENTS = b'{"function_call":{"arguments":%b}'
_ROLE = b'{"role":"assistant","content":"","refusal":null'
_FINISH = b'{},"logprobs":null,"finish_reason":%b,"stop_reason":%b}]'
_SCORED_END = b'},"logprobs":%b,"finish_reason":null}]%b}\n\n'
_NO_USAGE = b',"usage":null'
#: Behind every content: without usage, and with usage in the last chunk.
_CONTENT_ENDS = tuple(
    b'},"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n" for usage in (b"", _NO_USAGE)
)


class ChunkWriter:
    """Writes one stream's events.

    Keeps what each token needs ready, and nothing else: it lives as long as the stream. `is_older`:
    the client knows one `function_call` instead of `tool_calls`.
    """

    __slots__ = ("_content_end", "_contents", "_head", "_include_usage", "_is_older", "_running")

    def __init__(
        self,
        head: AnswerHead,
        *,
        include_usage: bool = False,
        is_continuous: bool = False,
        is_older: bool = False,
    ) -> None:
        """`is_continuous`: each chunk has the usage so far."""
        self._head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,' % (
            _encode(CHAT_PREFIX + head.id),
            head.created,
            escape(head.model),
        )
        self._include_usage = include_usage
        self._is_older = is_older
        self._content_end = _CONTENT_ENDS[include_usage]
        self._contents = [self._delta(index) + _CONTENT for index in range(head.choices)]
        self._running = RunningUsage(head.prompt_tokens, head.choices) if is_continuous else None

    def open(self) -> bytes:
        """Writes the role of every choice, before the first piece."""
        indices = range(len(self._contents))
        return b"".join([self._delta(index) + _ROLE + self._end(index) for index in indices])

    def write(self, pieces: Sequence[Piece]) -> bytes:
        parts: list[bytes] = []
        for piece in pieces:
            # The type first: nearly every piece is text, and `match` is several times slower.
            if type(piece) is TextPiece:
                if piece.logprobs or self._running is not None:
                    parts += self._detailed(piece)
                elif piece.text:
                    parts += (self._contents[piece.index], escape(piece.text), self._content_end)
            elif isinstance(piece, FinishPiece):
                parts.append(self._finish(piece.index, piece.finish))
            else:
                self._count(piece)
                if delta := self._other(piece):
                    parts += (self._delta(piece.index), delta, self._end(piece.index))
        return b"".join(parts)

    def _detailed(self, piece: TextPiece) -> tuple[bytes, ...]:
        """A chunk with log probabilities, or with the usage so far."""
        self._count(piece)
        if not piece.text and not piece.logprobs:
            return ()
        end = self._end(piece.index, piece.logprobs)
        return self._contents[piece.index], escape(piece.text), end

    def _count(self, piece: Piece) -> None:
        if self._running is not None:
            self._running.add(piece.index, getattr(piece, "tokens", 0))

    def _end(self, index: int, scores: Sequence[TokenLogprob] = ()) -> bytes:
        """The end of a chunk, after its delta."""
        if not scores and self._running is None:
            return self._content_end
        return _SCORED_END % (chunk_scores(scores), self._usage(index))

    def _usage(self, index: int) -> bytes:
        if self._running is not None:
            return self._running.member(index)
        return _NO_USAGE if self._include_usage else b""

    def close(self, usage: Usage) -> bytes:
        """The usage, if the client asked for it, and the end."""
        if not self._include_usage:
            return DONE
        counts = _encode(write_usage(usage))
        return b"".join((self._head, b'"choices":[],"usage":', counts, b"}\n\n", DONE))

    def _other(self, piece: Piece) -> bytes:
        """The delta of a piece other than text, without its last brace; empty if it says nothing.

        The older form has one call: the others are not sent.
        """
        match piece:
            case ReasoningPiece(_, text) if text:
                escaped = escape(text)
                return _REASONING % (escaped, escaped)
            case ToolCallPiece(_, call, call_id, name) if not self._is_older:
                return _CALL % (call, _encode(call_id), escape(name))
            case ToolCallPiece(_, 0, _, name):
                return _OLDER_CALL % escape(name)
            case ArgumentsPiece(_, call, text) if text and not self._is_older:
                return _ARGUMENTS % (call, escape(text))
            case ArgumentsPiece(_, 0, text) if text:
                return _OLDER_ARGUMENTS % escape(text)
        return b""

    def _finish(self, index: int, finish: Finish) -> bytes:
        if self._running is not None:
            self._running.settle(index, finish.completion_tokens)
        reason = _encode(write_reason(finish, is_older=self._is_older))
        told = _FINISH % (reason, safe(_encode(finish.matched)))
        return b"".join((self._delta(index), told, self._usage(index), b"}\n\n"))

    def _delta(self, index: int) -> bytes:
        return self._head + _DELTA % index


@dataclass(slots=True)
class _Gathered:
    """The pieces of one choice."""

    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[tuple[ToolCallPiece, list[str]]] = field(default_factory=list)
    scores: list[TokenLogprob] = field(default_factory=list)
    prompt: PromptPiece | None = None
    finish: Finish | None = None

    def add(self, piece: Piece) -> None:
        match piece:
            case TextPiece(_, text):
                self.texts.append(text)
                self.scores += piece.logprobs
            case ReasoningPiece(_, text):
                self.reasoning.append(text)
            case ToolCallPiece():
                self.calls.append((piece, []))
            case ArgumentsPiece(_, call, text):
                self.calls[call][1].append(text)
            case PromptPiece():
                self.prompt = piece
            case FinishPiece(_, finish):
                self.finish = finish

    def reason(self, *, is_older: bool) -> FinishReason:
        assert self.finish is not None, "an answer has its finish"
        return write_reason(self.finish, is_older=is_older)

    def message(self, *, is_older: bool) -> AnswerMessage:
        calls = [
            AnsweredCall(id=call.id, function=AnsweredFunction(call.name, "".join(arguments)))
            for call, arguments in self.calls
        ]
        content, reasoning = "".join(self.texts), "".join(self.reasoning) or None
        return AnswerMessage(
            role="assistant",
            content=content or (None if calls else ""),
            refusal=None,
            reasoning_content=reasoning,
            reasoning=reasoning,
            tool_calls=calls if calls and not is_older else None,
            function_call=calls[0].function if calls and is_older else None,
        )


class CompletionWriter:
    """Gathers the pieces of an answer that is sent whole."""

    def __init__(self, head: AnswerHead, *, is_older: bool = False) -> None:
        self._head = head
        self._is_older = is_older
        self._choices = [_Gathered() for _ in range(head.choices)]

    def open(self) -> bytes:
        return b""

    def write(self, pieces: Sequence[Piece]) -> bytes:
        for piece in pieces:
            self._choices[piece.index].add(piece)
        return b""

    def close(self, usage: Usage) -> bytes:
        choices = [
            Choice(
                index=index,
                message=gathered.message(is_older=self._is_older),
                logprobs=choice_scores(gathered.scores),
                finish_reason=gathered.reason(is_older=self._is_older),
                stop_reason=gathered.finish.matched if gathered.finish else None,
            )
            for index, gathered in enumerate(self._choices)
        ]
        prompt = next((each.prompt for each in self._choices if each.prompt), None)
        return _encode(
            ChatCompletion(
                id=CHAT_PREFIX + self._head.id,
                created=self._head.created,
                model=self._head.model,
                choices=choices,
                usage=write_usage(usage),
                prompt_logprobs=UNSET if prompt is None else prompt_scores(prompt.logprobs),
            )
        )


def answer_message(pieces: Iterable[Piece]) -> tuple[AnswerMessage, FinishReason]:
    """The message of one choice that is complete, and its finish reason."""
    gathered = _Gathered()
    for piece in pieces:
        gathered.add(piece)
    return gathered.message(is_older=False), gathered.reason(is_older=False)


def write_reason(finish: Finish, *, is_older: bool) -> FinishReason:
    return "function_call" if is_older and finish.reason == "tool_calls" else finish.reason


def write_usage(usage: Usage) -> CompletionUsage:
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(usage.cached_tokens),
        completion_tokens_details=CompletionTokensDetails(usage.reasoning_tokens),
    )
