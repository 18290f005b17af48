"""The tools of a chat request: definitions, choices, the older form, and calls in the history."""

from typing import Any

import msgspec
import pytest

from dynemo.api.openai.chat import read_chat_ask
from dynemo.errors import RequestError
from dynemo.messages.ask import Ask, TextPart, Tool, ToolCallPart, ToolChoice, ToolResultPart

USER = {"role": "user", "content": "hi"}
WEATHER = {
    "type": "function",
    "function": {
        "strict": True,
        "name": "get_weather",
        "parameters": {"required": ["city"], "properties": {"city": {"type": "string"}}},
        "x-more": [1, None],
    },
}
TIME = {"type": "function", "function": {"name": "mcp/clock.time"}}


def ask(**fields: Any) -> Ask:
    return read_chat_ask(msgspec.json.encode({"messages": [USER], **fields}))


def refused(**fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        ask(**fields)
    assert str(caught.value.param) in str(caught.value)
    return caught.value


def test_definitions_stay_as_they_were_sent() -> None:
    got = ask(tools=[WEATHER, TIME]).tools
    assert got == [Tool("get_weather", WEATHER), Tool("mcp/clock.time", TIME)]
    assert msgspec.json.encode(got[0].definition) == msgspec.json.encode(WEATHER)  # keys in order


@pytest.mark.parametrize(
    ("sent", "choice"),
    [
        (None, None),
        ("none", ToolChoice("none")),
        ("auto", ToolChoice("auto")),
        ("required", ToolChoice("required")),
        (
            {"type": "function", "function": {"name": "get_weather"}},
            ToolChoice("required", ("get_weather",)),
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [TIME]},
            },
            ToolChoice("auto", ("mcp/clock.time",)),
        ),
    ],
)
def test_a_choice_of_tools(sent: Any, choice: ToolChoice | None) -> None:
    assert ask(tools=[WEATHER, TIME], tool_choice=sent).tool_choice == choice


def test_the_older_form() -> None:
    function = WEATHER["function"]
    got = ask(functions=[function], function_call={"name": "get_weather"})
    assert got.tools == [Tool("get_weather", {"type": "function", "function": function})]
    assert got.tool_choice == ToolChoice("required", ("get_weather",))
    assert ask(functions=[function], function_call="none").tool_choice == ToolChoice("none")
    assert ask(functions=[]).tools is None
    assert refused(functions=[function], tools=[WEATHER]).param == "tools"


@pytest.mark.parametrize("choice", ["none", "auto"])
def test_a_choice_without_tools_changes_nothing(choice: str) -> None:
    assert ask(tool_choice=choice).tools is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [TIME, {"type": "web_search"}]}, "tools[1].type"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f" * 257}}]},
            "tools[0].function.name",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "description": 5}}]},
            "tools[0].function.description",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": "yes"}}]},
            "tools[0].function.strict",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
        (
            {
                "tools": [
                    {"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}
                ]
            },
            "tools[0].function.parameters",
        ),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name"),
        ({"functions": [{"name": "f"}, {"name": "f"}]}, "functions[1].name"),
        ({"tools": "all"}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"tools": [WEATHER], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice"),
        (
            {
                "tools": [WEATHER],
                "tool_choice": {"type": "function", "function": {"name": "get_whether"}},
            },
            "tool_choice",
        ),
        ({"tools": [WEATHER], "parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"max_thinking_tokens": -1}, "max_thinking_tokens"),
    ],
)
def test_a_wrong_tool_names_its_place(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


def test_a_near_name_is_suggested() -> None:
    choice = {"type": "function", "function": {"name": "get_whether"}}
    error = refused(tools=[WEATHER, TIME], tool_choice=choice)
    assert 'did you mean "get_weather"?' in str(error)


def test_very_many_tools_and_very_long_ones() -> None:
    many = [{"type": "function", "function": {"name": f"f{n}"}} for n in range(1000)]
    assert len(ask(tools=many).tools or ()) == 1000
    assert refused(tools=many * 5).param == "tools"
    long = {"type": "function", "function": {"name": "f", "description": "x" * 2**20}}
    assert ask(tools=[long]).tools == [Tool("f", long)]
    others = [
        {"type": "function", "function": {"name": f"f{n}", "description": "x" * 2**20}}
        for n in range(4)
    ]
    assert refused(tools=others).param == "tools"
    deep: Any = {}
    for _ in range(200):
        deep = {"properties": deep}
    nested = {"type": "function", "function": {"name": "f", "parameters": deep}}
    assert refused(tools=[nested]).param == "tools[0].function"


def test_an_older_call_and_its_result_get_one_id() -> None:
    messages = [
        USER,
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "f", "arguments": '{"a": 1}'},
        },
        {"role": "function", "name": "f", "content": "2"},
    ]
    _, call, result = ask(messages=messages).turns
    assert call.parts == (ToolCallPart("f", '{"a": 1}', "call00001"),)
    assert result.role == "tool"
    assert result.parts == (ToolResultPart("2", "call00001", "f"),)


def test_an_answer_of_the_openai_client_can_be_sent_back() -> None:
    """Its `parse` and `stream` helpers return such a message."""
    message = {
        "role": "assistant",
        "content": "{}",
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "parsed": {"a": 1},
        "reasoning_content": None,
        "provider_specific_fields": {"x": 1},
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "index": 0,
                "function": {"name": "f", "arguments": "{}", "parsed_arguments": {"a": 1}},
            }
        ],
    }
    turn = ask(messages=[USER, message]).turns[1]
    assert turn.parts == (TextPart("{}"), ToolCallPart("f", "{}", "call_1"))
