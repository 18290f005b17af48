"""pydantic-ai: tools, the default output type (a tool), the other outputs, and streams."""

import asyncio

from common import CAPITAL, DEMO, SCRIPTED, WEATHER, City, raised, weather
from pydantic_ai import Agent, ModelHTTPError, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

demo = OpenAIChatModel("demo", provider=OpenAIProvider(base_url=DEMO, api_key="none"))
scripted = OpenAIChatModel("scripted", provider=OpenAIProvider(base_url=SCRIPTED, api_key="none"))

asked: list[str] = []


def get_weather(city: str) -> str:
    """Returns the weather in a city."""
    asked.append(city)
    return weather(city)


def tools() -> None:
    for model, question in ((demo, WEATHER), (scripted, "weather in two cities")):
        agent = Agent(model, tools=[get_weather], model_settings={"temperature": 0})
        asked.clear()
        result = agent.run_sync(question)
        assert asked, result
        assert result.output
        assert result.usage.output_tokens > 0
        if model is scripted:
            assert sorted(asked) == ["Oslo", "Zürich"], asked
        agent.run_sync("And now?", message_history=result.all_messages())


def outputs() -> None:
    assert Agent(scripted, output_type=City).run_sync("final result").output.name == "Oslo"
    assert Agent(demo, output_type=City).run_sync(CAPITAL).output.people >= 0
    native = Agent(demo, output_type=NativeOutput(City, strict=True))
    assert native.run_sync(CAPITAL).output.people >= 0


def reasoning() -> None:
    agent = Agent(scripted)
    result = agent.run_sync("think")
    assert result.output == "Four.", result
    assert result.response.thinking == "Two and two.", result
    agent.run_sync("Why?", message_history=result.all_messages())


async def streams() -> None:
    agent = Agent(demo)
    async with agent.run_stream(CAPITAL) as result:
        parts = [text async for text in result.stream_text(delta=True, debounce_by=None)]
    assert "Paris" in "".join(parts), parts
    made = Agent(scripted, output_type=City)
    async with made.run_stream("final result") as answer:
        cities = [city async for city in answer.stream_output(debounce_by=None)]
    assert cities[-1].name == "Oslo", cities


def errors() -> None:
    model = OpenAIChatModel("gpt-9", provider=OpenAIProvider(base_url=DEMO, api_key="none"))
    wrong = raised(ModelHTTPError, lambda: Agent(model).run_sync("Hi"))
    assert "404" in str(wrong), wrong


tools()
outputs()
reasoning()
asyncio.run(streams())
errors()
