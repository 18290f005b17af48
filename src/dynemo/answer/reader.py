"""Splits the text of one choice into reasoning, content and tool calls. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from msgspec import structs

from dynemo.answer.formats.format import (
    CallArguments,
    CallStarted,
    Format,
    Part,
    SaidReasoning,
    SaidText,
    needed_marks,
)
from dynemo.answer.formats.parser import AnswerParser
from dynemo.answer.placement import EntryPlacement
from dynemo.limits import HELD_CALL_CHARACTERS, READ_CHARACTERS
from dynemo.messages.answer import (
    ArgumentsPiece,
    Finish,
    FinishPiece,
    Piece,
    ReasoningPiece,
    TextPiece,
    TokenLogprob,
    ToolCallPiece,
)
from dynemo.messages.ask import Tool

#: Of a request's id, in the ids of its calls. OpenAI takes ids of up to 40 characters, and a client
#: may continue a conversation there.
_ID_CHARACTERS = 28
#: At most so many slices of one piece: joining them again takes time.
_SLICES = 64


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """The parts of an answer that are not content, and how to find them."""

    format: Format
    tools: tuple[Tool, ...] = ()  #: that may be called; empty: a call is content
    is_reasoning_open: bool = False  #: the prompt ends inside the model's thoughts
    splits_reasoning: bool = True  #: otherwise its thoughts and their marks are content
    is_parallel: bool = True  #: the answer may hold several calls
    is_sure: bool = False  #: a grammar writes the calls, so none can be malformed


class AnswerReader:
    """The state of one choice. Feed it every piece in order, up to the finish."""

    __slots__ = (
        "_calls",
        "_id",
        "_index",
        "_is_parallel",
        "_marks",
        "_parser",
        "_places",
        "_prompt_tokens",
        "_reasoning_tokens",
        "_silent",
        "_splits",
        "_tokens",
    )

    def __init__(self, index: int, plan: AnswerPlan, request_id: str, prompt_tokens: int) -> None:
        """`request_id` is unique, and begins the ids of calls to which the model gives none."""
        self._index = index
        self._id = request_id
        self._prompt_tokens = prompt_tokens
        self._is_parallel = plan.is_parallel
        self._parser = AnswerParser(
            plan.format,
            plan.tools,
            reasoning_open=plan.is_reasoning_open,
            wants_calls=bool(plan.tools),
            wants_reasoning=plan.splits_reasoning,
            held=0 if plan.is_sure else HELD_CALL_CHARACTERS,
        )
        self._marks = needed_marks(plan.format, wants_calls=True, wants_reasoning=True)
        self._places: EntryPlacement | None = None
        self._splits = plan.splits_reasoning
        self._calls = 0
        self._tokens = 0
        self._reasoning_tokens = 0
        self._silent = 0  # tokens whose text is held back

    def read(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Returns the pieces of these. A second call may cause a `FinishPiece` that the engine does
        not know about: then the caller must cancel the engine's request."""
        read: list[Piece] = []
        for piece in pieces:
            if type(piece) is TextPiece:
                is_whole = self._feed(piece, read)
            elif isinstance(piece, FinishPiece):
                is_whole = self._end(piece.finish, read)
            else:
                read.append(piece)
                continue
            if not is_whole:
                read.append(FinishPiece(self._index, self._ended()))
                break
        return read

    def _feed(self, piece: TextPiece, read: list[Piece]) -> bool:
        """Adds the pieces of a text. False: the answer ends here."""
        self._tokens += piece.tokens
        self._silent += piece.tokens
        parser = self._parser
        was_thinking = parser.is_thinking
        if piece.logprobs:
            self._places = self._places or EntryPlacement(self._marks)
            self._places.add(piece.logprobs)
        elif parser.passes(piece.text):
            self._pass(piece, read, is_thinking=was_thinking)
            return True
        # Thoughts may begin or end inside a piece of several tokens.
        is_cut = piece.tokens > 1 and self._splits and (was_thinking or not self._reasoning_tokens)
        slices = _slices(piece) if is_cut else ((piece.text, piece.tokens),)
        parts: list[Part] = []
        for text, tokens in slices:
            was_thinking = parser.is_thinking
            found = parser.feed(text)
            if self._splits and (was_thinking or parser.is_thinking or _is_reasoning(found)):
                self._reasoning_tokens += tokens
            parts = _joined(parts, found)
        return self._add(parts, read)

    def _pass(self, piece: TextPiece, read: list[Piece], *, is_thinking: bool) -> None:
        tokens, self._silent = self._silent, 0
        if is_thinking:
            self._reasoning_tokens += piece.tokens
            read.append(ReasoningPiece(self._index, piece.text, tokens))
        elif tokens == piece.tokens:
            read.append(piece)
        else:
            read.append(TextPiece(self._index, piece.text, tokens))

    def _scores(self, text: str) -> tuple[TokenLogprob, ...]:
        """The log probabilities of a part's tokens, if they are wanted."""
        return () if self._places is None else self._places.take(text)

    def _add(self, parts: Sequence[Part], read: list[Piece]) -> bool:
        index = self._index
        for part in parts:
            tokens, self._silent = self._silent, 0
            match part:
                case SaidText(text):
                    read.append(TextPiece(index, text, tokens, self._scores(text)))
                case SaidReasoning(text):
                    read.append(ReasoningPiece(index, text, tokens, self._scores(text)))
                case CallArguments(text):
                    if self._places is not None:
                        self._places.skip(text)
                    read.append(ArgumentsPiece(index, self._calls - 1, text, tokens))
                case CallStarted(call_id, name):
                    self._silent = tokens
                    if self._calls and not self._is_parallel:
                        return False
                    call_id = call_id or f"call_{self._id[-_ID_CHARACTERS:]}{self._calls:04x}"
                    read.append(ToolCallPiece(index, self._calls, call_id, name))
                    self._calls += 1
        return True

    def _end(self, finish: Finish, read: list[Piece]) -> bool:
        is_whole = self._add(self._parser.end(), read)
        if not is_whole:
            return False
        if self._silent:  # the last tokens were marks, which have no text
            read.append(TextPiece(self._index, "", self._silent))
            self._silent = 0
        reason = "tool_calls" if finish.reason == "stop" and self._calls else finish.reason
        finish = structs.replace(finish, reason=reason, reasoning_tokens=self._reasoning_tokens)
        read.append(FinishPiece(self._index, finish))
        return True

    def _ended(self) -> Finish:
        return Finish(
            "tool_calls",
            self._prompt_tokens,
            self._tokens,
            reasoning_tokens=self._reasoning_tokens,
        )


def in_parts(pieces: Sequence[Piece]) -> Iterator[Sequence[Piece]]:
    """Yields the pieces with long tokens in several parts, each of which is read in milliseconds.

    The first part of a text has its tokens. Without a long token, yields `pieces` itself. The text
    of many tokens is one part: an engine that makes these faster than they are read has to wait.
    """
    if not any(_is_long(piece) for piece in pieces):
        yield pieces
        return
    for piece in pieces:
        if type(piece) is not TextPiece:
            yield [piece]
            continue
        text = piece.text
        yield [structs.replace(piece, text=text[:READ_CHARACTERS])]
        for start in range(READ_CHARACTERS, len(text), READ_CHARACTERS):
            yield [TextPiece(piece.index, text[start : start + READ_CHARACTERS], 0)]


def _is_long(piece: Piece) -> bool:
    return type(piece) is TextPiece and len(piece.text) > READ_CHARACTERS * (piece.tokens or 1)


def _slices(piece: TextPiece) -> list[tuple[str, int]]:
    """Cuts a piece into texts with their numbers of tokens, as if all its tokens were equally long:
    the text of each is not known."""
    text, tokens = piece.text, piece.tokens
    count = min(tokens, _SLICES)
    ends = [(len(text) * at // count, tokens * at // count) for at in range(count + 1)]
    return [(text[a:b], last - first) for (a, first), (b, last) in pairwise(ends)]


def _joined(parts: list[Part], more: list[Part]) -> list[Part]:
    """Both together. Two texts of one kind at their seam become one."""
    if not parts or not more:
        return more or parts
    match parts[-1], more[0]:
        case SaidReasoning(text), SaidReasoning(rest):
            return [*parts[:-1], SaidReasoning(text + rest), *more[1:]]
        case SaidText(text), SaidText(rest):
            return [*parts[:-1], SaidText(text + rest), *more[1:]]
    return [*parts, *more]


def _is_reasoning(parts: Sequence[Part]) -> bool:
    return any(isinstance(part, SaidReasoning) for part in parts)
