"""LangChain: `bind_tools`, `with_structured_output` in its three methods, and an agent."""

import asyncio
from typing import Any

import openai
from common import CAPITAL, DEMO, SCRIPTED, WEATHER, City, raised, weather
from langchain.agents import create_agent
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

demo = ChatOpenAI(model="demo", base_url=DEMO, api_key="none", max_retries=0, temperature=0)
scripted = ChatOpenAI(model="scripted", base_url=SCRIPTED, api_key="none", max_retries=0)


@tool
def get_weather(city: str) -> str:
    """Returns the weather in a city."""
    return weather(city)


def bind_tools() -> None:
    bound = demo.bind_tools([get_weather])
    first = bound.invoke(WEATHER)
    assert [call["name"] for call in first.tool_calls] == ["get_weather"], first
    result = get_weather.invoke(first.tool_calls[0])
    assert isinstance(result, ToolMessage)
    last = bound.invoke([HumanMessage(WEATHER), first, result])
    assert last.content, last


def parallel_calls() -> None:
    bound = scripted.bind_tools([get_weather], parallel_tool_calls=True, strict=True)
    whole: Any = None
    for chunk in bound.stream("weather in two cities", stream_usage=True):
        whole = chunk if whole is None else whole + chunk
    assert isinstance(whole, AIMessageChunk)
    assert [call["args"] for call in whole.tool_calls] == [{"city": "Zürich"}, {"city": "Oslo"}]
    assert whole.invalid_tool_calls == []
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] > 0, whole
    results = [get_weather.invoke(call) for call in whole.tool_calls]
    last = bound.invoke([HumanMessage("weather in two cities"), whole, *results])
    assert last.content == "It says: Rain in Zürich; Rain in Oslo", last


def structured_output() -> None:
    made = demo.with_structured_output(City, method="json_schema")
    assert isinstance(made.invoke(CAPITAL), City)
    for strict in (None, True):
        made = scripted.with_structured_output(City, method="function_calling", strict=strict)
        assert made.invoke("city as a tool") == City(name="Oslo", people=700000)
        made = demo.with_structured_output(City, method="function_calling", strict=strict)
        assert isinstance(made.invoke(CAPITAL), City)
    # Here the model may write any object, and the client checks it.
    made = demo.with_structured_output(City, method="json_mode", include_raw=True)
    got = made.invoke("Write a city as JSON.", max_tokens=60)
    assert got["raw"].content.startswith("{"), got


def agent() -> None:
    for model, question in ((demo, WEATHER), (scripted, "weather in two cities")):
        made = create_agent(model, [get_weather])
        state = made.invoke({"messages": [("user", question)]}, {"recursion_limit": 8})
        kinds = [message.type for message in state["messages"]]
        assert "tool" in kinds, state
        assert kinds[-1] == "ai"
        assert state["messages"][-1].content, state
    made = create_agent(scripted, [], response_format=City, system_prompt="Answer briefly.")
    state = made.invoke({"messages": [("user", "city as a tool")]}, {"recursion_limit": 8})
    assert isinstance(state["structured_response"], City), state


async def concurrent() -> None:
    answers = await asyncio.gather(*(demo.ainvoke(CAPITAL) for _ in range(4)))
    assert all("Paris" in str(answer.content) for answer in answers), answers


def errors() -> None:
    unknown = ChatOpenAI(model="gpt-9", base_url=DEMO, api_key="none", max_retries=0)
    raised(openai.NotFoundError, lambda: unknown.invoke("Hi"))


bind_tools()
parallel_calls()
structured_output()
agent()
asyncio.run(concurrent())
errors()
