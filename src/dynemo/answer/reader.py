"""Splits the text of one choice into reasoning, content and tool calls. Pure."""

from collections.abc import Sequence
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


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """The parts of an answer that are not content, and how to find them."""

    format: Format
    tools: tuple[Tool, ...] = ()  #: that may be called; empty: a call is content
    is_reasoning_open: bool = False  #: the prompt ends inside the model's thoughts
    splits_reasoning: bool = True  #: otherwise its thoughts and their marks are content
    is_parallel: bool = True  #: the answer may hold several calls


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
        parser = self._parser
        parts: list[Part] = []
        for text, tokens in self._slices(piece):
            was_thinking = parser.is_thinking
            found = parser.feed(text)
            if self._splits and (was_thinking or parser.is_thinking or _is_reasoning(found)):
                self._reasoning_tokens += tokens
            parts = _joined(parts, found)
        self._tokens += piece.tokens
        self._silent += piece.tokens
        if piece.logprobs:
            self._places = self._places or EntryPlacement(self._marks)
            self._places.add(piece.logprobs)
        return self._add(parts, read)

    def _slices(self, piece: TextPiece) -> Sequence[tuple[str, int]]:
        """Texts with the tokens of each. A piece of several tokens, in which thoughts may end, is
        cut into texts of equal length: so only the tokens of thoughts count as such, within one."""
        text, count = piece.text, piece.tokens
        if count < 2 or not self._splits or not (self._parser.is_thinking or self._tokens == 0):
            return ((text, count),)
        ends = [len(text) * number // count for number in range(count + 1)]
        return [(text[start:end], 1) for start, end in pairwise(ends)]

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


def _joined(parts: list[Part], more: list[Part]) -> list[Part]:
    """Both together, with the thoughts at their seam in one part."""
    if parts and more and isinstance(more[0], SaidReasoning):
        last = parts[-1]
        if isinstance(last, SaidReasoning):
            return [*parts[:-1], SaidReasoning(last.text + more[0].text), *more[1:]]
    return [*parts, *more] if parts else more


def _is_reasoning(parts: Sequence[Part]) -> bool:
    return any(isinstance(part, SaidReasoning) for part in parts)
