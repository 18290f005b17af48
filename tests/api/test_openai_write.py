import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynemo.answer.usage import UsageCounter
from dynemo.api.dialect import AnswerHead
from dynemo.api.openai.safe import escape
from dynemo.api.openai.write import ChunkWriter, CompletionWriter
from dynemo.errors import EngineError
from dynemo.messages.answer import (
    Finish,
    Piece,
    PromptPiece,
    ReasoningPiece,
    TextPiece,
    TokenLogprob,
    Usage,
)
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
        b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop",'
        b'"stop_reason":null}]}\n\n'
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
        "stop_reason": None,
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


ENTRIES = (
    TokenLogprob("", -0.5, b"\xf0\x9f", (TokenLogprob("a", -0.25, b"a", (), 9),), 7),
    TokenLogprob("😀\u2028", -1.5, b"\x98\x80\xe2\x80\xa8", (), 8),
)
CONTENT = [
    {
        "token": "",
        "logprob": -0.5,
        "bytes": [240, 159],
        "top_logprobs": [{"token": "a", "logprob": -0.25, "bytes": [97]}],
    },
    {"token": "😀\u2028", "logprob": -1.5, "bytes": [152, 128, 226, 128, 168], "top_logprobs": []},
]


def test_log_probabilities_in_a_chunk() -> None:
    data = writer().write([TextPiece(0, "😀\u2028", 2, ENTRIES), TextPiece(0, "a", 1)])
    assert len(data.decode().splitlines()) == 4
    first, second = (event["choices"][0] for event in events(data))
    assert first["delta"] == {"content": "😀\u2028"}
    assert first["logprobs"] == {"content": CONTENT, "refusal": None}
    assert second["logprobs"] is None


def test_log_probabilities_of_a_whole_answer() -> None:
    tally, write = UsageCounter(7, 1), CompletionWriter(AnswerHead("1", 5, "demo", 1))
    prompt = (None, TokenLogprob("b", -3.0, b"b", (ENTRIES[0], ENTRIES[1]), 5))
    for pieces in (
        [PromptPiece(0, prompt)],
        [TextPiece(0, "😀", 1, ENTRIES[:1])],
        [TextPiece(0, "\u2028", 1, ENTRIES[1:])],
        ended(0, "", 1, Finish("stop", 7, 3, matched=13)),
    ):
        add(tally, pieces)
        write.write(pieces)
    answer = json.loads(write.close(tally.usage()))
    assert answer["choices"][0]["logprobs"] == {"content": CONTENT, "refusal": None}
    assert answer["choices"][0]["stop_reason"] == 13
    assert answer["prompt_logprobs"] == [
        None,
        {
            "5": {"logprob": -3.0, "rank": None, "decoded_token": "b"},
            "7": {"logprob": -0.5, "rank": 1, "decoded_token": ""},
            "8": {"logprob": -1.5, "rank": 2, "decoded_token": "😀\u2028"},
        },
    ]


def test_usage_in_every_chunk() -> None:
    write = ChunkWriter(AnswerHead("1", 5, "demo", 2, 7), include_usage=True, is_continuous=True)
    pieces: list[Piece] = [TextPiece(1, "", 2), TextPiece(0, "a", 1), ReasoningPiece(1, "b", 1)]
    data = write.open() + write.write(pieces) + write.write(ended(1, "", 0, Finish("stop", 7, 4)))
    usages = [(event["choices"][0]["index"], *event["usage"].values()) for event in events(data)]
    assert usages == [(0, 7, 0, 7), (1, 7, 0, 7), (0, 7, 1, 8), (1, 7, 3, 10), (1, 7, 4, 11)]


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
        ended(1, "", 1, Finish("stop", 7, 2, matched="\u2028")),
    ):
        add(tally, pieces)
        assert write.write(pieces) == b""
    assert write.close(tally.usage()) == (
        b'{"id":"chatcmpl-1","object":"chat.completion","created":5,"model":"demo","choices":['
        b'{"index":0,"message":{"role":"assistant","content":"Aa","refusal":null},'
        b'"logprobs":null,"finish_reason":"length","stop_reason":null},'
        b'{"index":1,"message":{"role":"assistant","content":"B","refusal":null},'
        b'"logprobs":null,"finish_reason":"stop","stop_reason":"\xe2\x80\xa8"}],'
        b'"usage":{"prompt_tokens":7,"completion_tokens":4,"total_tokens":11,'
        b'"prompt_tokens_details":{"cached_tokens":0},'
        b'"completion_tokens_details":{"reasoning_tokens":0}}}'
    )
