"""Reads `phrasings.toml`: what users say to the demo model, and its answers."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class Talk(NamedTuple):
    """Questions that all have the same answer."""

    questions: list[str]
    answer: str


class ToolSketch(NamedTuple):
    """A function that is offered and never called."""

    name: str
    about: str
    parameter: str


CONTENT: dict[str, Any] = tomllib.loads(
    (Path(__file__).parent / "phrasings.toml").read_text(encoding="utf-8")
)
SMALL_TALK = [Talk(**entry) for entry in CONTENT["small_talk"]]
OTHER_TOOLS = [ToolSketch(**entry) for entry in CONTENT["other_tools"]]
FALLBACK: str = CONTENT["fallback"]
NO_WEATHER_TOOL: str = CONTENT["no_weather_tool"]
WHICH_CITY: str = CONTENT["which_city"]


def phrases(name: str) -> list[str]:
    """Returns the list with this name. Its {} stand for a country, a city or a number."""
    found: list[str] = CONTENT[name]
    return found


def trained_texts() -> Iterator[str]:
    """Yields all texts of the training, from both sides."""
    for name, content in CONTENT.items():
        if (
            isinstance(content, list)
            and isinstance(content[0], str)
            and not name.startswith("held_")
        ):
            yield from content
    for talk in SMALL_TALK:
        yield from (*talk.questions, talk.answer)


def answer_to(question: str) -> str:
    """Returns the answer of small talk to one of its own questions."""
    return next(talk.answer for talk in SMALL_TALK if question in talk.questions)
