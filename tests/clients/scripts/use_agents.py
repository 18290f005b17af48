"""openai-agents with its chat model: tools, an output type, a session, and streams."""

import asyncio
from typing import Any

import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from agents.items import ToolCallItem
from common import CAPITAL, DEMO, SCRIPTED, WEATHER, City, weather

set_tracing_disabled(True)


def model(url: str, name: str) -> OpenAIChatCompletionsModel:
    client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    return OpenAIChatCompletionsModel(name, client)


GREEDY = ModelSettings(temperature=0)
demo, scripted = model(DEMO, "demo"), model(SCRIPTED, "scripted")


@function_tool
def get_weather(city: str) -> str:
    """Returns the weather in a city."""
    return weather(city)


async def tools() -> None:
    for chosen, question in ((demo, WEATHER), (scripted, "weather in two cities")):
        agent = Agent(name="A", model=chosen, tools=[get_weather], model_settings=GREEDY)
        session = SQLiteSession("one")
        result = await Runner.run(agent, question, session=session)
        calls = [item for item in result.new_items if isinstance(item, ToolCallItem)]
        assert len(calls) == (2 if chosen is scripted else 1), result.new_items
        assert result.final_output, result
        await Runner.run(agent, "And now?", session=session)


async def settings() -> None:
    """The settings that change nothing are accepted."""
    more = ModelSettings(
        store=True,
        metadata={"a": "b"},
        parallel_tool_calls=True,
        prompt_cache_retention="24h",
        include_usage=True,
        verbosity="medium",
    )
    result = await Runner.run(Agent(name="A", model=demo, model_settings=more), CAPITAL)
    assert "Paris" in str(result.final_output), result


async def output_type() -> None:
    result = await Runner.run(Agent(name="A", model=demo, output_type=City), CAPITAL)
    assert isinstance(result.final_output, City), result


async def streams() -> None:
    agent = Agent(name="A", model=scripted, tools=[get_weather])
    for question, said in (("weather in two cities", "It says"), ("think, then call", "It says")):
        result = Runner.run_streamed(agent, question)
        kinds = [event.type async for event in result.stream_events()]
        assert "run_item_stream_event" in kinds
        assert said in str(result.final_output), result
        again: list[Any] = [*result.to_input_list(), {"role": "user", "content": "Why?"}]
        await Runner.run(agent, again)


async def errors() -> None:
    try:
        await Runner.run(Agent(name="A", model=model(DEMO, "gpt-9")), "Hi")
    except openai.NotFoundError:
        return
    raise AssertionError("An unknown model was served.")


async def everything() -> None:
    await tools()
    await settings()
    await output_type()
    await streams()
    await errors()


asyncio.run(everything())
