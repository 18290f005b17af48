"""Pieces of text to pieces of content, reasoning and calls."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynemo.answer.formats.format import Format, Part, ReasoningFormat, SaidReasoning, SaidText
from dynemo.answer.formats.known.table import TOOLS
from dynemo.answer.formats.parser import AnswerParser
from dynemo.answer.reader import AnswerPlan, AnswerReader, in_parts
from dynemo.limits import READ_CHARACTERS
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

HERMES = TOOLS["hermes"].format
FORMAT = Format(ReasoningFormat("think", ("<think>",), ("</think>",)), HERMES)
TOOL = Tool("f", {"type": "function", "function": {"name": "f"}})
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


def read(texts: Sequence[str], finish: Finish, *, is_parallel: bool = True) -> list[Piece]:
    plan = AnswerPlan(FORMAT, (TOOL,), is_parallel=is_parallel)
    reader = AnswerReader(2, plan, "ab", 7)
    pieces: list[Piece] = []
    for text in texts:
        pieces += reader.read([TextPiece(2, text, 1)])
        if pieces and isinstance(pieces[-1], FinishPiece):
            return pieces
    return pieces + reader.read([FinishPiece(2, finish)])


def tokens(pieces: Sequence[Piece]) -> int:
    return sum(getattr(piece, "tokens", 0) for piece in pieces)


def test_a_whole_answer() -> None:
    texts = ["<think>", "I", " see", "</think>", "\n\n", "Yes.", "\n", *CALL.splitlines(True), ""]
    pieces = read(texts, Finish("stop", 7, len(texts), 3, matched=5))
    reasoning = "".join(piece.text for piece in pieces if isinstance(piece, ReasoningPiece))
    content = "".join(piece.text for piece in pieces if isinstance(piece, TextPiece))
    arguments = "".join(piece.text for piece in pieces if isinstance(piece, ArgumentsPiece))
    assert (reasoning, content.strip(), arguments) == ("I see", "Yes.", '{"a": 1}')
    assert [p for p in pieces if isinstance(p, ToolCallPiece)] == [
        ToolCallPiece(2, 0, "call_ab0000", "f")
    ]
    finish = Finish("tool_calls", 7, len(texts), 3, reasoning_tokens=4, matched=5)
    assert pieces[-1] == FinishPiece(2, finish)
    assert tokens(pieces) == len(texts)  # none is lost, and none counts twice


PARTS = [
    "<think>", "I t", "hink", "</thi", "nk>", "\n\n", "Yes", " t.", "<tool", "_call>", CALL,
]  # fmt: skip


@given(st.lists(st.sampled_from(PARTS), max_size=12), st.integers(1, 4))
def test_each_token_s_log_probability_stays_with_its_text(texts: list[str], step: int) -> None:
    reader = AnswerReader(0, AnswerPlan(FORMAT, (TOOL,)), "ab", 7)
    entries = [TokenLogprob(text, -float(at), text.encode()) for at, text in enumerate(texts)]
    pieces: list[Piece] = []
    for at in range(0, len(texts), step):
        some = entries[at : at + step]
        text = "".join(entry.text for entry in some)
        pieces += reader.read([TextPiece(0, text, len(some), tuple(some))])
    pieces += reader.read([FinishPiece(0, Finish("stop", 7, len(texts)))])
    for kind in (TextPiece, ReasoningPiece):
        said = [piece for piece in pieces if isinstance(piece, kind)]
        found = [entry for piece in said for entry in piece.logprobs]
        assert "".join(piece.text for piece in said) == "".join(entry.text for entry in found)
        assert all(entry.text in texts[-int(entry.logprob)] for entry in found)


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_content_alone_keeps_its_finish(reason: str) -> None:
    finish = Finish(reason, 7, 2)  # type: ignore[arg-type]
    assert read(["Y", "es"], finish)[-1] == FinishPiece(2, finish)


def test_a_cut_answer_stays_cut_even_with_a_call() -> None:
    pieces = read([CALL, "\n", "And"], Finish("length", 7, 3))
    assert pieces[-1] == FinishPiece(2, Finish("length", 7, 3))


def test_a_second_call_ends_an_answer_that_may_have_one() -> None:
    pieces = read([CALL, "\n" + CALL, "more"], Finish("stop", 7, 9), is_parallel=False)
    assert sum(isinstance(piece, ToolCallPiece) for piece in pieces) == 1
    assert pieces[-1] == FinishPiece(2, Finish("tool_calls", 7, 2))
    both = read([CALL, "\n" + CALL], Finish("stop", 7, 2))
    assert [p.call for p in both if isinstance(p, ToolCallPiece)] == [0, 1]


def test_ids_have_the_length_that_openai_takes() -> None:
    plan = AnswerPlan(FORMAT, (TOOL,))
    reader = AnswerReader(1, plan, "0123456789abcdef0123456789abcdef-1", 7)
    pieces = reader.read([TextPiece(1, CALL, 1), FinishPiece(1, Finish("stop", 7, 1))])
    [call] = [piece for piece in pieces if isinstance(piece, ToolCallPiece)]
    assert call.id.startswith("call_")
    assert len(call.id) <= 40
    assert call.id.endswith("-10000")  # the second choice, and its first call


def test_thoughts_are_counted_in_a_piece_of_many_tokens() -> None:
    """A slow reader gets many tokens in one piece."""
    text = "<think>\nTwo and two.\n</think>\n\nThat is four."
    reader = AnswerReader(0, AnswerPlan(FORMAT, (TOOL,)), "ab", 7)
    pieces = reader.read([TextPiece(0, text, len(text))])
    pieces += reader.read([FinishPiece(0, Finish("stop", 7, len(text)))])
    assert [piece for piece in pieces if isinstance(piece, ReasoningPiece)] == [
        ReasoningPiece(0, "Two and two.", len(text))
    ]
    last = pieces[-1]
    assert isinstance(last, FinishPiece)
    end = text.index("</think>") + len("</think>")
    assert last.finish.reasoning_tokens == end - len("<think")  # the mark opens with its last token


def test_a_long_token_is_read_in_parts() -> None:
    text = "<tool_call>" * READ_CHARACTERS
    finish = FinishPiece(2, Finish("stop", 7, 1))
    whole: list[Piece] = [TextPiece(2, text, 1), finish]
    *parts, last = in_parts(whole)
    assert last == [finish]
    pieces = [piece for part in parts for piece in part]
    assert all(isinstance(p, TextPiece) and len(p.text) <= READ_CHARACTERS for p in pieces)
    assert "".join(piece.text for piece in pieces if isinstance(piece, TextPiece)) == text
    assert tokens(pieces) == 1


def test_other_pieces_stay_together() -> None:
    text = "a" * READ_CHARACTERS * 4
    many: list[Piece] = [TextPiece(2, text, 4), FinishPiece(2, Finish("stop", 7, 4))]
    (part,) = in_parts(many)
    assert part is many


def test_sure_calls_are_sent_as_they_are_written() -> None:
    reader = AnswerReader(0, AnswerPlan(FORMAT, (TOOL,), is_sure=True), "ab", 7)
    pieces: list[Piece] = []
    for text in ('<tool_call>{"name": "f", ', '"arguments": {"a', '": 1', "}}", "</tool_call>"):
        pieces.append(TextPiece(0, "|", 0))
        pieces += reader.read([TextPiece(0, text, 1)])
    said = [p.text for p in pieces if isinstance(p, ArgumentsPiece | TextPiece) and p.text]
    assert "".join(said) == '||{"a|": |1}|'


FRAGMENTS = ("<think>", "</think>", "<tool_call>", "</tool_call>", CALL, "<", "\n", " ", "a b")


@given(st.lists(st.sampled_from(FRAGMENTS) | st.text("<>/ \na", max_size=4)), st.booleans())
def test_texts_that_pass_are_what_the_parser_gives(texts: list[str], is_open: bool) -> None:
    plan = AnswerPlan(FORMAT, (TOOL,), is_reasoning_open=is_open)
    reader = AnswerReader(0, plan, "ab", 7)
    parser = AnswerParser(FORMAT, (TOOL,), reasoning_open=is_open)
    read: list[Piece] = []
    parts: list[Part] = []
    for text in texts:
        read += reader.read([TextPiece(0, text, 1)])
        parts += parser.feed(text)
    read += reader.read([FinishPiece(0, Finish("stop", 7, len(texts)))])
    parts += parser.end()
    for kind, said in ((TextPiece, SaidText), (ReasoningPiece, SaidReasoning)):
        text = "".join(piece.text for piece in read if isinstance(piece, kind))
        assert text == "".join(part.text for part in parts if isinstance(part, said))
    assert tokens(read) == len(texts)
