import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynemo.answer.usage import UsageCounter
from dynemo.api.dialect import AnswerHead
from dynemo.api.openai.write import ChunkWriter, CompletionWriter, escape
from dynemo.errors import EngineError
from dynemo.messages.answer import Finish, Piece, TextPiece, Usage
from support.pieces import ended

FINISH = Finish("stop", 7, 3, 2)


def events(data: bytes) -> list[Any]:
    """Returns the decoded data of each event, without the final [DONE]."""
    parts = data.split(b"\n\n")
    assert parts.pop() == b""
    assert all(part.startswith(b"data: ") and b"\n" not in part for part in parts)
    return [json.loads(part[6:]) for part in parts if part != b"data: [DONE]"]


def add(counter: UsageCounter, pieces: Sequence[Piece]) -> int:
    return sum(counter.add(piece) for piece in pieces)


def writer(n: int = 1, include_usage: bool = False) -> ChunkWriter:
    return ChunkWriter(AnswerHead("1", 5, 'a"\u2028b', n), include_usage=include_usage)


def test_a_chunk_to_the_byte() -> None:
    write = ChunkWriter(AnswerHead("1", 5, "demo", 1))
    assert write.open() == (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"demo",'
        b'"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},'
        b'"logprobs":null,"finish_reason":null}]}\n\n'
    )
    assert write.write([TextPiece(0, "Hi\n", 1)]) == (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"demo",'
        b'"choices":[{"index":0,"delta":{"content":"Hi\\n"},'
        b'"logprobs":null,"finish_reason":null}]}\n\n'
    )
    assert write.write(ended(0, "", 1, FINISH)) == (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"demo",'
        b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
    )


def test_text_that_comes_with_the_finish_comes_first() -> None:
    text, end = events(writer().write(ended(0, "!", 1, FINISH)))
    assert text["choices"][0]["delta"] == {"content": "!"}
    assert text["choices"][0]["finish_reason"] is None
    assert end["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
    }


def test_held_back_text_makes_no_chunk() -> None:
    assert writer().write([TextPiece(0, "", 1)]) == b""


def test_usage_only_where_asked_for() -> None:
    tally = UsageCounter(7, 1)
    add(tally, ended(0, "", 3, FINISH))
    assert writer().close(tally.usage()) == b"data: [DONE]\n\n"
    asked = writer(include_usage=True)
    (last,) = events(asked.close(tally.usage()))
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    others = asked.open() + asked.write([TextPiece(0, "a", 1)])
    assert all(event["usage"] is None for event in events(others))


def test_choices_open_and_run_by_their_index() -> None:
    write = writer(n=3)
    assert [e["choices"][0]["index"] for e in events(write.open())] == [0, 1, 2]
    (event,) = events(write.write([TextPiece(2, "a", 1)]))
    assert event["choices"][0]["index"] == 2
    assert event["model"] == 'a"\u2028b'


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_one_line_for_any_client(text: str) -> None:
    line = escape(text)
    assert json.loads(line) == text
    assert len(line.decode().splitlines()) == 1


def test_the_engine_s_count_has_the_last_word() -> None:
    tally = UsageCounter(7, 2)
    assert add(tally, [TextPiece(0, "a", 2)]) == 2
    assert tally.completion_tokens == 2
    assert add(tally, ended(0, "", 0, Finish("length", 7, 5, 7))) == 3
    assert add(tally, ended(1, "b", 1, Finish("stop", 7, 1, 3))) == 1
    usage = tally.usage()
    assert usage == Usage(7, 6, 3)


def test_an_answer_without_its_end_is_broken() -> None:
    tally = UsageCounter(7, 2)
    add(tally, ended(0, "", 3, FINISH))
    with pytest.raises(EngineError):
        tally.usage()


def test_a_whole_answer() -> None:
    tally, write = (
        UsageCounter(7, 2),
        CompletionWriter(AnswerHead("1", 5, "demo", 2)),
    )
    for pieces in (
        [TextPiece(1, "B", 1)],
        [TextPiece(0, "A", 1)],
        ended(0, "a", 1, Finish("length", 7, 2)),
        ended(1, "", 1, Finish("stop", 7, 2)),
    ):
        add(tally, pieces)
        assert write.write(pieces) == b""
    assert write.close(tally.usage()) == (
        b'{"id":"chatcmpl-1","object":"chat.completion","created":5,"model":"demo","choices":['
        b'{"index":0,"message":{"role":"assistant","content":"Aa","refusal":null},'
        b'"logprobs":null,"finish_reason":"length"},'
        b'{"index":1,"message":{"role":"assistant","content":"B","refusal":null},'
        b'"logprobs":null,"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":7,"completion_tokens":4,"total_tokens":11,'
        b'"prompt_tokens_details":{"cached_tokens":0},'
        b'"completion_tokens_details":{"reasoning_tokens":0}}}'
    )
