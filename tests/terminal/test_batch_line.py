import json

import msgspec
import pytest

from dynemo.errors import EngineError, RequestError
from dynemo.messages.answer import ArgumentsPiece, Finish, ReasoningPiece, ToolCallPiece
from dynemo.messages.ask import Ask, text_turn
from dynemo.terminal.batch.line import answered, complete, failed, key_of, parse
from dynemo.terminal.reply import Reply
from support.pieces import ended


def test_text_is_one_user_message() -> None:
    ask = parse(b'{"text": "Hello", "id": 7, "temperature": 0.5, "stop": "END"}')
    assert ask == Ask(turns=[text_turn("user", "Hello")], temperature=0.5, stop=["END"])


def test_messages_are_a_conversation() -> None:
    line = {"messages": [{"role": "developer", "content": "a"}, {"role": "user", "content": "b"}]}
    ask = parse(json.dumps(line | {"custom_id": "x", "max_tokens": 5}).encode())
    assert [turn.role for turn in ask.turns] == ["system", "user"]
    assert ask.max_tokens == 5


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"hello", "not valid JSON"),
        (b'{"text": "a"', "not valid JSON"),
        (b'{"text": "\xff"}', "'text'"),
        (b"[" * 100_000, "not"),
        (b'{"text": ' + b"[" * 100_000, "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"{}", "needs 'text' or 'messages'"),
        (b'{"text": null}', "'text'"),
        (b'{"text": 3}', "'text'"),
        (b'{"text": "a", "messages": []}', "exclude each other"),
        (b'{"messages": []}', "'messages'"),
        (b'{"messages": [{"content": "a"}]}', "role"),
        (b'{"messages": [{"role": "user", "content": 3}]}', "content"),
        (b'{"text": "a", "temprature": 1}', "temprature"),
        (b'{"text": "a", "temperature": 9}', "'temperature'"),
        (b'{"text": "a", "max_tokens": "5"}', "'max_tokens'"),
        (b'{"text": "a", "n": 2}', "'n'"),
    ],
)
def test_a_wrong_line_is_one_sentence_with_the_field(line: bytes, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        parse(line)
    assert "\n" not in str(caught.value)


def test_the_line_goes_before_the_run() -> None:
    settings = Ask(temperature=0.1, top_p=0.9, n=3)
    ask = complete(parse(b'{"text": "a", "temperature": 1}'), settings, model="m", system="s")
    assert (ask.temperature, ask.top_p, ask.n, ask.model) == (1.0, 0.9, 1, "m")
    assert [turn.role for turn in ask.turns] == ["system", "user"]
    own = b'{"messages": [{"role": "system", "content": "own"}], "model": "other"}'
    ask = complete(parse(own), settings, model="m", system="s")
    assert ask.turns == [text_turn("system", "own")]
    assert ask.model == "other"


def test_a_key_tells_lines_and_setups_apart() -> None:
    keys = {
        key_of(number, data, setup)
        for number in (1, 2)
        for data in (b"a", b"b")
        for setup in (b"x", b"y")
    }
    assert len({key.input_hash for key in keys}) == 4
    assert len(keys) == 8


def test_output_lines() -> None:
    data = b'{"text": "a", "custom_id": {"any": [1.50]}, "id": 10000000000000000000000}'
    key = key_of(3, data, b"")
    reply = Reply(started=0.0)
    reply.take(ended(0, "Hi \u2028", 2, Finish("stop", 5, 3)))
    reply.last = 0.25
    line = msgspec.json.encode(answered(key, data, reply, 5)).decode()
    assert line.startswith(f'{{"line":3,"input_hash":"{key.input_hash}","id":1000')
    assert "\n" not in line
    assert json.loads(line) == {
        "line": 3,
        "input_hash": key.input_hash,
        "id": 10**22,
        "custom_id": {"any": [1.5]},
        "response": "Hi \u2028",
        "finish_reason": "stop",
        "tokens_in": 5,
        "tokens_out": 3,
        "elapsed_ms": 250.0,
    }
    for bad in (b"x", b'{"id": "\xff"}'):
        assert b'"id"' not in msgspec.json.encode(failed(key, bad, EngineError("no")))
    error = msgspec.json.encode(failed(key_of(1, b"x", b""), b"x", EngineError("It failed.")))
    assert list(json.loads(error)) == ["line", "input_hash", "error"]


def test_a_line_with_reasoning_and_calls() -> None:
    reply = Reply(started=0.0)
    reply.take([ReasoningPiece(0, "Hmm", 1), ReasoningPiece(0, ".", 1)])
    for number, city in enumerate(("Paris", "Lima")):
        reply.take([ToolCallPiece(0, number, f"id{number}", "get_weather")])
        reply.take([ArgumentsPiece(0, number, part, 1) for part in ('{"city": ', f'"{city}"}}')])
    assert reply.tokens == 6
    reply.take(ended(0, "", 0, Finish("tool_calls", 5, 7)))
    line = json.loads(msgspec.json.encode(answered(key_of(1, b"{}", b""), b"{}", reply, 5)))
    assert line["reasoning"] == "Hmm."
    assert (line["response"], line["finish_reason"]) == ("", "tool_calls")
    assert (line["tokens_in"], line["tokens_out"]) == (5, 7)
    assert line["tool_calls"] == [
        {
            "id": f"id{number}",
            "type": "function",
            "function": {"name": "get_weather", "arguments": f'{{"city": "{city}"}}'},
        }
        for number, city in enumerate(("Paris", "Lima"))
    ]


def test_a_line_may_have_tools() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    ask = parse(json.dumps({"text": "a", "tools": [tool], "reasoning_effort": "none"}).encode())
    asked = complete(ask, Ask(reasoning=True), model="m", system=None)
    assert [each.name for each in asked.tools or ()] == ["f"]
    assert asked.reasoning is False
    with pytest.raises(RequestError, match="'tools"):
        parse(b'{"text": "a", "tools": [{"type": "function"}]}')
