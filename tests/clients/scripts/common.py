"""The parts that the scripts share: the servers' addresses, questions, a tool, and a check."""

import sys
from collections.abc import Callable

from pydantic import BaseModel, Field

#: The API of the demo model, and that of the scripted engine.
DEMO, SCRIPTED = sys.argv[1:3]
CAPITAL = "What is the capital of France?"
WEATHER = "What is the weather in Paris?"


class City(BaseModel):
    """A city. The bounds keep a small model from filling its context."""

    name: str = Field(max_length=20)
    people: int = Field(ge=0, le=99_999_999)


def weather(city: str) -> str:
    return f"Rain in {city}"


WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Returns the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def raised(kind: type[Exception], call: Callable[[], object]) -> Exception:
    """Returns the error of a call that must fail."""
    try:
        got = call()
    except kind as error:
        return error
    raise AssertionError(f"It did not fail, but gave {got!r}.")
