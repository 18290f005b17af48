"""Generates whole chats, with or without a system prompt and tools, and with some exchanges."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import tasks
import tools
from countries import COUNTRIES
from phrasings import NO_WEATHER_TOOL, answer_to, phrases
from sentences import WORDS, sentence
from tasks import Message, Task

PLAIN_TASKS: tuple[tuple[Task, float], ...] = (
    (tasks.capital, 20),
    (tasks.capitals_in_a_row, 6),
    (tasks.reverse, 9),
    (tasks.count, 9),
    (tasks.count_range, 6),
    (tasks.total, 5),
    (tasks.small_talk, 9),
    (tasks.about_itself, 3),
    (tasks.unknown, 11),
    (tasks.repeat, 20),
    (tasks.name_memory, 4),
    (tasks.no_weather, 2),
    (tasks.capital_json, 4),
    (tasks.keyed_json, 5),
    (tasks.forced_json, 3),
    (tasks.other_json, 3),
)


@dataclass
class Chat:
    """Messages and tools for the template, or bare text without them."""

    messages: list[Message] = field(default_factory=list)
    tools: list[dict[str, Any]] | None = None
    text: str = ""


def system_prompt(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(phrases("system"))
    count = rng.randint(1, 3) if kind < 0.95 else rng.randint(4, 30)
    return " ".join(sentence(rng) for _ in range(count))


def exchanges(rng: Random) -> int:
    dice = rng.random()
    if dice < 0.55:
        return rng.randint(1, 2)
    if dice < 0.9:
        return rng.randint(3, 6)
    return rng.randint(7, 14) if dice < 0.985 else rng.randint(20, 36)


def plain_exchange(rng: Random) -> list[Message]:
    choices, weights = zip(*PLAIN_TASKS, strict=True)
    task: Task = rng.choices(choices, weights)[0]
    return task(rng)


def plain_chat(rng: Random) -> Chat:
    chat = Chat()
    if rng.random() < 0.4:
        chat.messages.append({"role": "system", "content": system_prompt(rng)})
    for _ in range(exchanges(rng)):
        chat.messages += plain_exchange(rng)
    return chat


def json_chat(rng: Random) -> Chat:
    """The system prompt asks for JSON, the user for a capital."""
    chat = Chat([{"role": "system", "content": rng.choice(phrases("json_system"))}])
    for _ in range(rng.randint(1, 3)):
        country = rng.choice(COUNTRIES)
        question = tasks.sloppy(
            rng, rng.choice(phrases("capital")).format(tasks.name_of(rng, country))
        )
        chat.messages += tasks.exchange(
            question, tasks.dumps({"country": country.title, "capital": country.capital})
        )
    return chat


def tool_chat(rng: Random) -> Chat:
    offered, weather_tool, clock_tool = tools.toolbox(rng)
    chat = Chat(tools=offered)
    if rng.random() < 0.3:
        chat.messages.append({"role": "system", "content": system_prompt(rng)})
    for _ in range(rng.randint(1, 4)):
        dice = rng.random()
        if dice < 0.55 and weather_tool:
            chat.messages += tools.weather(rng, weather_tool)
        elif dice < 0.68 and clock_tool:
            chat.messages += tools.clock(rng, clock_tool)
        elif dice < 0.73 and weather_tool:
            chat.messages += tools.nowhere(rng)
        else:
            chat.messages += plain_exchange_but_weather(rng)
    return chat


def plain_exchange_but_weather(rng: Random) -> list[Message]:
    while True:
        messages = plain_exchange(rng)
        if messages[-1]["content"] != NO_WEATHER_TOOL:
            return messages


def bare_text(rng: Random) -> Chat:
    """Text for plain completions, without roles and turns."""
    kind = rng.random()
    if kind < 0.6:
        return Chat(text=rng.choice(COUNTRIES).answer)
    if kind < 0.75:
        first = rng.choice((1, 1, rng.randint(2, 50)))
        return Chat(text=tasks.listed(range(first, first + rng.randint(5, 30))))
    if kind < 0.85:
        return Chat(text=answer_to("Tell me a story."))
    question, answer = tasks.capital(rng)
    return Chat(text=f"Question: {question['content']}\nAnswer: {answer['content']}")


def make_chat(rng: Random) -> Chat:
    dice = rng.random()
    if dice < 0.04:
        return bare_text(rng)
    if dice < 0.07:
        return json_chat(rng)
    return tool_chat(rng) if dice < 0.29 else plain_chat(rng)


def drill(rng: Random) -> Chat:
    """Short sentences to repeat. Once a model can copy, it learns everything else faster."""
    while True:
        messages = tasks.repeat(rng)
        if len(messages[-1]["content"]) < 40:
            return Chat(messages)


def filler(rng: Random) -> Chat:
    """Each word and number often enough for the tokenizer to learn it as a whole."""
    words = " ".join(rng.choice(WORDS) for _ in range(20))
    return Chat(text=words + " " + tasks.listed([rng.randrange(101) for _ in range(40)]))
