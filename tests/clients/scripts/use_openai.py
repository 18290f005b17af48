"""The official client: `parse`, the `stream` helper, and the message object that it returned."""

from typing import Any

import openai
from common import CAPITAL, DEMO, SCRIPTED, WEATHER, WEATHER_TOOL, City, raised, weather

demo = openai.OpenAI(base_url=DEMO, api_key="none", max_retries=0)
scripted = openai.OpenAI(base_url=SCRIPTED, api_key="none", max_retries=0)


def user(text: str, *more: Any) -> Any:
    """A conversation: a question, and what followed."""
    return [{"role": "user", "content": text}, *more]


AND_PERU = {"role": "user", "content": "And of Peru?"}


def parse() -> None:
    answer = demo.chat.completions.parse(model="demo", messages=user(CAPITAL), response_format=City)
    message = answer.choices[0].message
    assert isinstance(message.parsed, City), message
    again = demo.chat.completions.parse(
        model="demo", messages=user(CAPITAL, message, AND_PERU), response_format=City
    )
    assert isinstance(again.choices[0].message.parsed, City), again


def stream_helper() -> None:
    with demo.chat.completions.stream(
        model="demo",
        messages=user(CAPITAL),
        response_format=City,
        stream_options={"include_usage": True},
    ) as events:
        kinds = [event.type for event in events]
        final = events.get_final_completion()
    assert {"content.delta", "content.done", "chunk"} <= set(kinds), kinds
    message = final.choices[0].message
    assert isinstance(message.parsed, City), final
    assert final.usage is not None
    assert final.usage.completion_tokens > 0
    demo.chat.completions.create(model="demo", messages=user(CAPITAL, message, AND_PERU))


def a_turn_with_a_tool() -> None:
    tools: Any = [WEATHER_TOOL]
    asked = user(WEATHER)
    answer = demo.chat.completions.create(model="demo", messages=asked, tools=tools, temperature=0)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls", answer
    assert choice.message.tool_calls
    for call in choice.message.tool_calls:
        assert call.type == "function"
    result = {"role": "tool", "tool_call_id": call.id, "content": weather("Paris")}
    last = demo.chat.completions.create(
        model="demo", messages=user(WEATHER, choice.message, result), tools=tools
    )
    assert last.choices[0].message.content, last


def parallel_calls() -> None:
    function: Any = WEATHER_TOOL["function"]
    strict: Any = {"type": "function", "function": {**function, "strict": True}}
    asked = user("weather in two cities")
    with scripted.chat.completions.stream(
        model="scripted", messages=asked, tools=[strict], parallel_tool_calls=True
    ) as events:
        done = [e for e in events if e.type == "tool_calls.function.arguments.done"]
        message = events.get_final_completion().choices[0].message
    assert [e.parsed_arguments for e in done] == [{"city": "Zürich"}, {"city": "Oslo"}], done
    assert message.content == "I will look."
    calls = message.tool_calls or []
    assert len({call.id for call in calls}) == 2
    results: list[Any] = []
    for call in reversed(calls):
        arguments: Any = call.function.parsed_arguments
        content = weather(arguments["city"])
        results.append({"role": "tool", "tool_call_id": call.id, "content": content})
    last = scripted.chat.completions.create(
        model="scripted", messages=user("weather in two cities", message, *results), tools=[strict]
    )
    said = last.choices[0].message.content
    assert said == "It says: Rain in Zürich; Rain in Oslo", said


def reasoning() -> None:
    answer = scripted.chat.completions.create(
        model="scripted", messages=user("think"), reasoning_effort="low"
    )
    message: Any = answer.choices[0].message
    assert (message.reasoning_content, message.content) == ("Two and two.", "Four."), message
    usage = answer.usage
    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert 0 < (usage.completion_tokens_details.reasoning_tokens or 0) < usage.completion_tokens
    scripted.chat.completions.create(model="scripted", messages=user("think", message, AND_PERU))


def errors() -> None:
    wrong: Any = raised(
        openai.NotFoundError,
        lambda: demo.chat.completions.create(model="gpt-9", messages=user("Hi")),
    )
    assert wrong.code == "model_not_found", wrong
    schema: Any = {"name": "x", "schema": {"type": "object", "properties": 7}}
    wrong = raised(
        openai.BadRequestError,
        lambda: demo.chat.completions.create(
            model="demo",
            messages=user("Hi"),
            response_format={"type": "json_schema", "json_schema": schema},
        ),
    )
    assert "response_format" in wrong.param, wrong


parse()
stream_helper()
a_turn_with_a_tool()
parallel_calls()
reasoning()
errors()
