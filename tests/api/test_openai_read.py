from typing import Any

import msgspec
import pytest

from dynemo.api.openai.chat import read_chat_ask
from dynemo.api.openai.decode import decode
from dynemo.api.openai.read import read_turns, wants_usage
from dynemo.api.openai.types import ChatRequest
from dynemo.errors import RequestError, UnsupportedField
from dynemo.messages.ask import (
    Ask,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Turn,
    text_turn,
)
from dynemo.messages.request import Guide

USER = {"role": "user", "content": "hi"}


def ask(**fields: Any) -> Ask:
    return read_chat_ask(msgspec.json.encode({"messages": [USER], **fields}))


def test_given_fields_arrive() -> None:
    fields: dict[str, Any] = {
        "model": "demo",
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "stop": ["a", "b"],
        "seed": -1,
        "presence_penalty": 1,
        "frequency_penalty": -1.5,
        "repetition_penalty": 1.1,
        "n": 2,
        "ignore_eos": True,
        "chat_template_kwargs": {"enable_thinking": False},
        "add_generation_prompt": False,
    }
    got = ask(**fields, logit_bias={"7": -100, "8": 1.5})
    assert {name: getattr(got, name) for name in fields} == fields
    assert got.logit_bias == {7: -100, 8: 1.5}
    assert got.turns == [text_turn("user", "hi")]


def test_missing_fields_stay_unset() -> None:
    assert ask() == Ask(turns=[text_turn("user", "hi")])
    names = ("temperature", "stop", "n", "tools", "model", "stream_options", "logprobs", "seed")
    assert ask(**dict.fromkeys(names)) == ask()


def test_names_of_one_thing() -> None:
    assert ask(stop="x").stop == ["x"]
    assert ask(top_k=-1).top_k == 0
    assert ask(max_completion_tokens=9).max_tokens == 9
    assert ask(max_completion_tokens=9, max_tokens=9).max_tokens == 9
    with pytest.raises(RequestError) as caught:
        ask(max_completion_tokens=9, max_tokens=8)
    assert caught.value.param == "max_tokens"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("audio", {"voice": "x"}),
        ("modalities", ["text", "audio"]),
        ("web_search_options", {}),
        ("verbosity", "high"),
        ("moderation", {"model": "x"}),
    ],
)
def test_unhonoured_fields_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(UnsupportedField) as caught:
        ask(**{field: value})
    assert caught.value.param == field
    assert field in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", []),
        ("response_format", {"type": "text"}),
        ("logprobs", False),
        ("top_logprobs", 0),
        ("min_tokens", 0),
        ("stop_token_ids", []),
        ("best_of", 1),
        ("functions", []),
        ("modalities", ["text"]),
        ("store", True),
        ("service_tier", "flex"),
        ("user", "me"),
        ("metadata", {"a": "b", "c": "d"}),
        ("prediction", {"type": "content", "content": "x"}),
        ("prompt_cache_options", {"mode": "explicit", "ttl": "30m"}),
        ("safety_identifier", "x"),
        ("prompt_cache_key", "x"),
        ("prompt_cache_retention", "24h"),
    ],
)
def test_values_without_effect_are_accepted(field: str, value: Any) -> None:
    assert ask(**{field: value}) == ask()


def test_log_probabilities_and_stops() -> None:
    assert ask(logprobs=True).logprobs == 0
    assert ask(logprobs=True, top_logprobs=20).logprobs == 20
    assert ask(prompt_logprobs=0).prompt_logprobs == 0
    assert ask(stop_token_ids=[3, 4]).stop_ids == [3, 4]
    assert ask(include_stop_str_in_output=True).include_stop is True
    assert ask(min_tokens=7).min_tokens == 7
    assert ask(best_of=2, n=2).n == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"stop_token_ids": [1] * 257}, "stop_token_ids"),
        ({"stop_token_ids": 3}, "stop_token_ids"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"best_of": 2}, "best_of"),
        ({"best_of": 2, "n": 3}, "best_of"),
        (
            {"stream": True, "stream_options": {"continuous_usage_stats": True}},
            "stream_options.continuous_usage_stats",
        ),
    ],
)
def test_details_that_are_wrong(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        ask(**fields)
    assert caught.value.param == param


def test_every_unhonoured_field_has_its_rule() -> None:
    """Without a rule, such a field would be accepted and ignored."""
    from dynemo.api.openai import read, structured, types

    def unhonoured(struct: type[msgspec.Struct]) -> set[str]:
        return {
            field.name
            for field in msgspec.structs.fields(struct)
            if field.type == structured.Unhonoured
        }

    assert unhonoured(types.ChatRequest) == set(read._NEUTRAL)
    assert unhonoured(types.Message) == set(read._NEUTRAL_IN_MESSAGE)


def test_stream_options_need_a_stream() -> None:
    with pytest.raises(RequestError) as caught:
        ask(stream_options={"include_usage": True})
    assert caught.value.param == "stream_options"
    assert str(caught.value) == (
        "The 'stream_options' parameter is only allowed when 'stream' is enabled."
    )
    ask(stream=True, stream_options={"include_obfuscation": False})
    with pytest.raises(UnsupportedField) as unsupported:
        ask(stream=True, stream_options={"include_obfuscation": True})
    assert unsupported.value.param == "stream_options.include_obfuscation"


@pytest.mark.parametrize(
    ("options", "wanted"), [(None, False), ({}, False), ({"include_usage": True}, True)]
)
def test_usage_in_streams_is_asked_for(options: Any, wanted: bool) -> None:
    body = {"messages": [USER], "stream": True, "stream_options": options}
    assert wants_usage(decode(msgspec.json.encode(body), ChatRequest)) is wanted


def test_a_continued_message_is_the_assistant_s() -> None:
    messages = [USER, {"role": "assistant", "content": "The"}]
    assert ask(messages=messages, continue_final_message=True).continue_final_message
    with pytest.raises(RequestError, match="last message"):
        ask(continue_final_message=True)
    with pytest.raises(RequestError, match="exclude"):
        ask(messages=messages, continue_final_message=True, add_generation_prompt=True)


def test_messages_become_turns() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    got = ask(
        messages=[
            {"role": "developer", "content": "be brief", "name": "boss"},
            {"role": "user", "content": [{"type": "text", "text": t} for t in "ab"]},
            {"role": "assistant", "content": None, "tool_calls": [{**call, "index": 0}]},
            {"role": "tool", "content": "42", "tool_call_id": "c1"},
            {"role": "assistant", "content": "x", "reasoning_content": "hm", "tool_calls": []},
        ]
    ).turns
    assert got == [
        Turn("system", (TextPart("be brief"),), "boss"),
        Turn("user", (TextPart("a"), TextPart("b")), is_list=True),
        Turn("assistant", (ToolCallPart("f", "{}", "c1"),)),
        Turn("tool", (ToolResultPart("42", "c1"),)),
        Turn("assistant", (ReasoningPart("hm"), TextPart("x"))),
    ]


def test_arguments_may_come_as_an_object() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": [1]}}}
    [turn] = ask(messages=[{"role": "assistant", "tool_calls": [call]}]).turns
    assert turn.parts == (ToolCallPart("f", '{"a":[1]}'),)


def test_messages_of_a_file_have_any_role_and_any_name_of_reasoning() -> None:
    answer = {"role": "assistant", "content": "y"}
    critic = {"role": "critic", "content": "x"}
    messages = [critic, {**answer, "thinking": "hm"}, {**answer, "reasoning": "hm"}]
    assert read_turns(messages) == [
        text_turn("critic", "x"),
        *[Turn("assistant", (ReasoningPart("hm"), TextPart("y")))] * 2,
    ]


def test_an_answer_can_be_sent_back_as_it_came() -> None:
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": "Pretoria",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    assert ask(messages=[USER, answer, USER]).turns[1] == text_turn("assistant", "Pretoria")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": None}, "messages[1].content"),
        ({"role": "user"}, "messages[1].content"),
        (
            {"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]},
            "messages[1].tool_calls",
        ),
        ({"role": "user", "content": "x", "tool_call_id": "c"}, "messages[1].tool_call_id"),
        ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "messages[1].audio"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text"),
        (
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what is this?"},
                    {"type": "image_url", "image_url": {"url": "data:"}},
                ],
            },
            "messages[1].content[1]",
        ),
    ],
)
def test_a_message_that_cannot_be_honoured_names_its_place(message: Any, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        ask(messages=[USER, message])
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("message", "turn"),
    [
        ({"role": "user", "content": "x", "tool_calls": [], "refusal": ""}, text_turn("user", "x")),
        (
            {"role": "tool", "content": None, "tool_call_id": "c"},
            Turn("tool", (ToolResultPart("", "c"),)),
        ),
        (
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
                    {"type": "text", "text": "y", "prompt_cache_breakpoint": {}, "annotations": []},
                ],
            },
            Turn("user", (TextPart("x"), TextPart("y")), is_list=True),
        ),
        (
            {"role": "assistant", "content": "x", "thinking": "hm"},
            Turn("assistant", (ReasoningPart("hm"), TextPart("x"))),
        ),
    ],
)
def test_what_says_nothing_in_a_message_is_accepted(message: Any, turn: Turn) -> None:
    assert ask(messages=[USER, message]).turns[1] == turn


def test_a_part_of_text_with_something_else_in_it_is_refused() -> None:
    part = {"type": "text", "text": "hi", "image_url": {"url": "x"}}
    with pytest.raises(UnsupportedField) as caught:
        ask(messages=[{"role": "user", "content": [part]}])
    assert caught.value.param == "messages[0].content[0].image_url"


@pytest.mark.parametrize(
    ("wanted", "guide"),
    [
        ({"type": "json_object"}, Guide("json_schema", '{"type":"object"}')),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}},
            Guide("json_schema", '{"type":"integer"}'),
        ),
        ({"type": "grammar", "grammar": "root ::= []"}, Guide("grammar", "root ::= []")),
    ],
)
def test_a_response_format_is_a_guide(wanted: dict[str, Any], guide: Guide) -> None:
    assert ask(response_format=wanted).guide == guide


def test_a_response_format_without_its_schema() -> None:
    with pytest.raises(RequestError) as caught:
        ask(response_format={"type": "json_schema", "json_schema": {"name": "x"}})
    assert caught.value.param == "response_format.json_schema.schema"


@pytest.mark.parametrize("kind", ["json_schema", "grammar"])
def test_a_response_format_without_its_half(kind: str) -> None:
    with pytest.raises(RequestError) as caught:
        ask(response_format={"type": kind})
    assert caught.value.param == f"response_format.{kind}"
