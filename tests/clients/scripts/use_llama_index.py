"""LlamaIndex: `structured_predict` through tools and through a schema, tools, and a stream."""

from typing import Any

import openai
from common import CAPITAL, DEMO, SCRIPTED, City, raised, weather
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


def model(url: str, name: str, **more: Any) -> OpenAILike:
    return OpenAILike(
        model=name, api_base=url, api_key="none", is_chat_model=True, max_retries=0, **more
    )


demo = model(DEMO, "demo", should_use_structured_outputs=True)
calling = model(DEMO, "demo", is_function_calling_model=True)
scripted = model(SCRIPTED, "scripted", is_function_calling_model=True)


def get_weather(city: str) -> str:
    """Returns the weather in a city."""
    return weather(city)


def structured() -> None:
    got = scripted.structured_predict(City, PromptTemplate("city as a {kind}"), kind="tool")
    assert got == City(name="Oslo", people=700000), got
    asked = PromptTemplate("What is the capital of {country}?")
    for each in (demo, calling):
        assert isinstance(each.structured_predict(City, asked, country="France"), City)
    parts = list(scripted.stream_structured_predict(City, PromptTemplate("city as a tool")))
    assert parts[-1] == City(name="Oslo", people=700000), parts


def tools() -> None:
    tool = FunctionTool.from_defaults(get_weather)
    asked = ChatMessage(role=MessageRole.USER, content="weather in two cities")
    answer = scripted.chat_with_tools([tool], chat_history=[asked], allow_parallel_tool_calls=True)
    calls = scripted.get_tool_calls_from_response(answer)
    assert [call.tool_kwargs for call in calls] == [{"city": "Zürich"}, {"city": "Oslo"}], answer
    results = [
        ChatMessage(
            role=MessageRole.TOOL,
            content=weather(**call.tool_kwargs),
            additional_kwargs={"tool_call_id": call.tool_id},
        )
        for call in calls
    ]
    last = scripted.chat([asked, answer.message, *results])
    assert last.message.content == "It says: Rain in Zürich; Rain in Oslo", last


def streams() -> None:
    asked = ChatMessage(role=MessageRole.USER, content=CAPITAL)
    text = "".join(part.delta or "" for part in demo.stream_chat([asked]))
    assert "Paris" in text, text


def errors() -> None:
    raised(openai.NotFoundError, lambda: model(DEMO, "gpt-9").complete("Hi"))


structured()
tools()
streams()
errors()
