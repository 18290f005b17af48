"""LiteLLM as a library, with its own name for a server of this API, and with `hosted_vllm`."""

import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"  # else its import asks the internet

import litellm
from common import CAPITAL, DEMO, SCRIPTED, WEATHER, WEATHER_TOOL, City, raised, weather

litellm.suppress_debug_info = True


def ask(url: str, model: str, messages: list[Any], **more: Any) -> Any:
    return litellm.completion(
        model=model,
        messages=messages,
        api_base=url,
        api_key="none",
        num_retries=0,
        temperature=0,
        **more,
    )


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


def tools(provider: str) -> None:
    first = ask(DEMO, f"{provider}/demo", user(WEATHER), tools=[WEATHER_TOOL], tool_choice="auto")
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls", first
    [call] = message.tool_calls
    result = {
        "role": "tool", "tool_call_id": call.id, "name": "get_weather", "content": weather("Paris")
    }  # fmt: skip
    last = ask(DEMO, f"{provider}/demo", [*user(WEATHER), message, result], tools=[WEATHER_TOOL])
    assert last.choices[0].message.content, last


def parallel_calls_in_a_stream(provider: str) -> None:
    asked = user("weather in two cities")
    chunks = list(
        ask(
            SCRIPTED, f"{provider}/scripted", asked, tools=[WEATHER_TOOL], stream=True,
            stream_options={"include_usage": True}, parallel_tool_calls=True,
        )
    )  # fmt: skip
    whole: Any = litellm.stream_chunk_builder(chunks, messages=asked)
    message = whole.choices[0].message
    arguments = [call.function.arguments for call in message.tool_calls]
    assert arguments == ['{"city": "Zürich"}', '{"city": "Oslo"}'], arguments
    assert whole.usage.completion_tokens > 0
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": weather(call.id)}
        for call in message.tool_calls
    ]
    last = ask(SCRIPTED, f"{provider}/scripted", [*asked, message, *results], tools=[WEATHER_TOOL])
    assert last.choices[0].message.content.count("Rain in call_") == 2, last


def reasoning(provider: str) -> None:
    first = ask(SCRIPTED, f"{provider}/scripted", user("think"))
    message = first.choices[0].message
    assert (message.reasoning_content, message.content) == ("Two and two.", "Four."), message
    ask(SCRIPTED, f"{provider}/scripted", [*user("think"), message, *user("Why?")])
    ask(
        SCRIPTED, f"{provider}/scripted",
        [*user("think"), message.model_dump(), *user("Why?")],
    )  # fmt: skip
    chunks = list(ask(SCRIPTED, f"{provider}/scripted", user("think"), stream=True))
    thoughts = "".join(getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in chunks)
    assert thoughts == "Two and two.", thoughts


def a_form(provider: str) -> None:
    answer = ask(DEMO, f"{provider}/demo", user(CAPITAL), response_format=City)
    City.model_validate_json(answer.choices[0].message.content)


def errors(provider: str) -> None:
    raised(litellm.NotFoundError, lambda: ask(DEMO, f"{provider}/gpt-9", user("Hi")))
    schema = {"type": "json_schema", "json_schema": {"name": "x"}}
    wrong = raised(
        litellm.BadRequestError,
        lambda: ask(DEMO, f"{provider}/demo", user("Hi"), response_format=schema),
    )
    assert "response_format.json_schema.schema" in str(wrong), wrong


for name in ("openai", "hosted_vllm"):
    tools(name)
    parallel_calls_in_a_stream(name)
    reasoning(name)
    a_form(name)
    errors(name)
