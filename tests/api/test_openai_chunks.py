import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynemo.api.openai.chunks import ChunkWriter, CompletionWriter, UsageCounter, escape
from dynemo.errors import EngineError
from dynemo.messages import Finish, Piece

FINISH = Finish("stop", 7, 3, 2)


def events(data: bytes) -> list[Any]:
    """Every event's data, decoded, without the final [DONE]."""
    parts = data.split(b"\n\n")
    assert parts.pop() == b""
    assert all(part.startswith(b"data: ") and b"\n" not in part for part in parts)
    return [json.loads(part[6:]) for part in parts if part != b"data: [DONE]"]


def writer(n: int = 1, include_usage: bool = False) -> ChunkWriter:
    return ChunkWriter(
        id="chatcmpl-1", created=5, model='a"\u2028b', n=n, include_usage=include_usage
    )


def test_a_chunk_to_the_byte() -> None:
    write = ChunkWriter(id="chatcmpl-1", created=5, model="demo")
    assert write.opening() == (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"demo",'
        b'"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},'
        b'"logprobs":null,"finish_reason":null}]}\n\n'
    )
    assert write.piece(Piece(0, "Hi\n", 1, None)) == (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"demo",'
        b'"choices":[{"index":0,"delta":{"content":"Hi\\n"},'
        b'"logprobs":null,"finish_reason":null}]}\n\n'
    )
    assert write.piece(Piece(0, "", 1, FINISH)) == (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"demo",'
        b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
    )


def test_text_that_comes_with_the_finish_comes_first() -> None:
    text, end = events(writer().piece(Piece(0, "!", 1, FINISH)))
    assert text["choices"][0]["delta"] == {"content": "!"}
    assert text["choices"][0]["finish_reason"] is None
    assert end["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
    }


def test_held_back_text_makes_no_chunk() -> None:
    assert writer().piece(Piece(0, "", 1, None)) == b""


def test_usage_only_where_asked_for() -> None:
    tally = UsageCounter(7, 1)
    tally.add(Piece(0, "", 3, FINISH))
    assert writer().closing(tally.usage()) == b"data: [DONE]\n\n"
    asked = writer(include_usage=True)
    (last,) = events(asked.closing(tally.usage()))
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 2},
    }
    others = asked.opening() + asked.piece(Piece(0, "a", 1, None))
    assert all(event["usage"] is None for event in events(others))


def test_choices_open_and_run_by_their_index() -> None:
    write = writer(n=3)
    assert [e["choices"][0]["index"] for e in events(write.opening())] == [0, 1, 2]
    (event,) = events(write.piece(Piece(2, "a", 1, None)))
    assert event["choices"][0]["index"] == 2
    assert event["model"] == 'a"\u2028b'


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_one_line_for_any_client(text: str) -> None:
    line = escape(text)
    assert json.loads(line) == text
    assert len(line.decode().splitlines()) == 1


def test_the_engine_s_count_has_the_last_word() -> None:
    tally = UsageCounter(7, 2)
    assert tally.add(Piece(0, "a", 2, None)) == 2
    assert tally.completion_tokens == 2
    assert tally.add(Piece(0, "", 0, Finish("length", 7, 5, 7))) == 3
    assert tally.add(Piece(1, "b", 1, Finish("stop", 7, 1, 3))) == 1
    usage = tally.usage()
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (7, 6, 13)
    assert usage.prompt_tokens_details.cached_tokens == 3


def test_an_answer_without_its_end_is_broken() -> None:
    tally = UsageCounter(7, 2)
    tally.add(Piece(0, "", 3, FINISH))
    with pytest.raises(EngineError):
        tally.usage()


def test_a_whole_answer() -> None:
    tally, write = (
        UsageCounter(7, 2),
        CompletionWriter(id="chatcmpl-1", created=5, model="demo", n=2),
    )
    for piece in (
        Piece(1, "B", 1, None),
        Piece(0, "A", 1, None),
        Piece(0, "a", 1, Finish("length", 7, 2)),
        Piece(1, "", 1, Finish("stop", 7, 2)),
    ):
        tally.add(piece)
        write.piece(piece)
    assert write.body(tally) == (
        b'{"id":"chatcmpl-1","object":"chat.completion","created":5,"model":"demo","choices":['
        b'{"index":0,"message":{"role":"assistant","content":"Aa","refusal":null},'
        b'"logprobs":null,"finish_reason":"length"},'
        b'{"index":1,"message":{"role":"assistant","content":"B","refusal":null},'
        b'"logprobs":null,"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":7,"completion_tokens":4,"total_tokens":11,'
        b'"prompt_tokens_details":{"cached_tokens":0}}}'
    )
