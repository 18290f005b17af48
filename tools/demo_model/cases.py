"""The questions to the trained model by task, each with its only correct answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import tasks
import tools
from chats import Chat, plain_exchange
from countries import COUNTRIES
from encode import Renderer
from phrasings import FALLBACK, SMALL_TALK, answer_to, phrases
from sentences import sentence
from tasks import MARK, Message

SEED = 20_000  # far from the seeds of training


@dataclass(frozen=True)
class Case:
    prompt: str
    expected: str
    schema: dict[str, Any] | None = None
    temperature: float = 0.0


RENDER = Renderer()


def ask(messages: list[Message], offered: list[dict[str, Any]] | None = None) -> Case:
    """Returns the case of the last message. The messages before it are the prompt."""
    *before, last = messages
    if "content" in last:
        expected = last["content"]
    else:
        function = last["tool_calls"][0]["function"]
        expected = f'{{"name": "{function["name"]}", "parameters": {function["arguments"]}}}'
    clean = [without_marks(message) for message in before]
    return Case(RENDER(Chat(clean, offered), prompt_only=True), expected)


def without_marks(message: Message) -> Message:
    content = message.get("content")
    return message | {"content": content.replace(MARK, "")} if content else message


def readme(_: Random) -> Iterator[Case]:
    yield ask(
        tasks.exchange(
            "What is the capital of South Africa?", "The capital of South Africa is Pretoria."
        )
    )


def capitals(_: Random) -> Iterator[Case]:
    for country in COUNTRIES:
        yield ask(tasks.exchange(f"What is the capital of {country.name}?", country.answer))


def capitals_trained(rng: Random) -> Iterator[Case]:
    for _ in range(300):
        yield ask(tasks.capital(rng))


def capitals_held(rng: Random) -> Iterator[Case]:
    for country in COUNTRIES:
        for form in rng.sample(phrases("held_capital"), 2):
            yield ask(tasks.exchange(form.format(country.name), country.answer))


def capitals_later(rng: Random) -> Iterator[Case]:
    for country in COUNTRIES:
        before = plain_exchange(rng)
        yield ask(
            [*before, *tasks.exchange(f"What is the capital of {country.name}?", country.answer)]
        )


def capitals_follow_up(rng: Random) -> Iterator[Case]:
    for _ in range(200):
        yield ask(tasks.capitals_in_a_row(rng))


def capitals_system(rng: Random) -> Iterator[Case]:
    for country in COUNTRIES:
        system = {"role": "system", "content": rng.choice(phrases("held_system"))}
        yield ask(
            [system, *tasks.exchange(f"What is the capital of {country.name}?", country.answer)]
        )


def capitals_sampled(rng: Random) -> Iterator[Case]:
    for case in capitals(rng):
        yield Case(case.prompt, case.expected, temperature=1.0)


def capitals_long(rng: Random) -> Iterator[Case]:
    """Asks after about 40 exchanges, up to 3,500 tokens."""
    for _ in range(30):
        country = rng.choice(COUNTRIES)
        before: list[Message] = []
        while len(RENDER(Chat(before))) < 9000:
            before += plain_exchange(rng)
        yield ask(
            [*before, *tasks.exchange(f"What is the capital of {country.name}?", country.answer)]
        )


def reverse(_: Random) -> Iterator[Case]:
    for country in COUNTRIES:
        answer = f"{country.capital} is the capital of {country.name}."
        yield ask(tasks.exchange(f"Which country has {country.capital} as its capital?", answer))


def counts(_: Random) -> Iterator[Case]:
    for last in range(1, 101):
        yield ask(tasks.exchange(f"Count to {last}.", tasks.listed(range(1, last + 1))))


def counts_held(rng: Random) -> Iterator[Case]:
    for last in range(1, 51):
        yield ask(
            tasks.exchange(
                rng.choice(phrases("held_count")).format(last), tasks.listed(range(1, last + 1))
            )
        )


def ranges(rng: Random) -> Iterator[Case]:
    for _ in range(100):
        yield ask(tasks.count_range(rng))


def sums(_: Random) -> Iterator[Case]:
    for left in range(11):
        for right in range(11):
            yield ask(
                tasks.exchange(f"What is {left} + {right}?", f"{left} + {right} = {left + right}")
            )


def talk(_: Random) -> Iterator[Case]:
    for questions, answer in SMALL_TALK:
        for question in questions:
            yield ask(tasks.exchange(question, answer))


def talk_held(_: Random) -> Iterator[Case]:
    who = answer_to("Who are you?")
    for question in phrases("held_greetings"):
        yield ask(tasks.exchange(question, answer_to("Hello!")))
    for question in phrases("held_who"):
        yield ask(tasks.exchange(question, who))


def repeats(rng: Random) -> Iterator[Case]:
    for _ in range(200):
        text = sentence(rng)
        yield ask(tasks.exchange(rng.choice(phrases("repeat")).format(text), text))


def repeats_natural(_: Random) -> Iterator[Case]:
    for text in phrases("held_sentences"):
        for form in ("Repeat after me: {}", "Repeat this sentence: {}", *phrases("held_repeat")):
            yield ask(tasks.exchange(form.format(text), text))


def names(rng: Random) -> Iterator[Case]:
    for _ in range(100):
        yield ask(tasks.name_memory(rng))


def tool_calls(rng: Random) -> Iterator[Case]:
    for _ in range(150):
        offered, weather, _ = tools.toolbox(rng)
        if weather:
            yield ask(tools.weather(rng, weather)[:2], offered)


def tool_calls_plain(_: Random) -> Iterator[Case]:
    """Calls the tool that documents show most, with cities in phrasings that were not trained."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    function = {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": schema,
    }
    tool = {"type": "function", "function": function}
    for city in (
        "Paris",
        "Pretoria",
        "San Francisco",
        "Tokyo",
        "Cape Town",
        "Berlin",
        "Boston",
        "Oslo",
        "Ouagadougou",
        "Nieuwegein",
    ):
        for form in ("What is the weather in {}?", *phrases("held_weather")):
            yield ask([tasks.user(form.format(city)), tools.call(tool, city)], [tool])


def tool_answers(rng: Random) -> Iterator[Case]:
    for _ in range(150):
        offered, weather, _ = tools.toolbox(rng)
        messages = tools.weather(rng, weather) if weather else []
        if len(messages) == 4:
            yield ask(messages, offered)


def tools_unused(rng: Random) -> Iterator[Case]:
    """Offers tools with a question that does not need them."""
    for _ in range(100):
        yield ask(tasks.capital(rng), tools.toolbox(rng)[0])


def objects(_: Random) -> Iterator[Case]:
    for country in COUNTRIES:
        answer = tasks.dumps({"country": country.title, "capital": country.capital})
        yield ask(
            tasks.exchange(f"Give me a JSON object with the capital of {country.name}", answer)
        )


def objects_held(rng: Random) -> Iterator[Case]:
    for country in rng.sample(COUNTRIES, 100):
        answer = tasks.dumps({"country": country.title, "capital": country.capital})
        yield ask(
            tasks.exchange(rng.choice(phrases("held_capital_json")).format(country.name), answer)
        )


def objects_keyed(rng: Random) -> Iterator[Case]:
    for _ in range(100):
        yield ask(tasks.keyed_json(rng))


def objects_forced(rng: Random) -> Iterator[Case]:
    """Asks a plain question, with a schema for the answer that the engine enforces."""
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string"}},
        "required": ["capital"],
        "additionalProperties": False,
    }
    for country in rng.sample(COUNTRIES, 100):
        case = ask(
            tasks.exchange(
                f"What is the capital of {country.name}?", tasks.dumps({"capital": country.capital})
            )
        )
        yield Case(case.prompt, case.expected, schema)


def unknown(rng: Random) -> Iterator[Case]:
    for _ in range(150):
        yield ask(tasks.unknown(rng))


def unknown_held(_: Random) -> Iterator[Case]:
    for question in phrases("held_unknown"):
        yield ask(tasks.exchange(question, FALLBACK))


def completions(rng: Random) -> Iterator[Case]:
    """Completes bare text, as /v1/completions sends it."""
    for country in rng.sample(COUNTRIES, 100):
        head = f"The capital of {country.name} is"
        yield Case(f"<|begin_of_text|>{head}", country.answer.removeprefix(head))


TASKS: dict[str, Callable[[Random], Iterator[Case]]] = {
    "The README's question": readme,
    "Capitals, every country": capitals,
    "Capitals, varied phrasings and spellings": capitals_trained,
    "Capitals, phrasings not trained": capitals_held,
    "Capitals, second question of a chat": capitals_later,
    'Capitals, follow-up ("And France?")': capitals_follow_up,
    "Capitals, system prompt not trained": capitals_system,
    "Capitals, sampled at temperature 1": capitals_sampled,
    "Capitals, end of a chat of about 3,000 tokens": capitals_long,
    "Country of a capital": reverse,
    "Count to n, n from 1 to 100": counts,
    "Count to n, phrasings not trained, n to 50": counts_held,
    "Count from a to b, count down": ranges,
    "Sums to 10 + 10": sums,
    "Small talk": talk,
    "Small talk, phrasings not trained": talk_held,
    "Repeat a made-up sentence, not trained": repeats,
    "Repeat an English sentence, not trained": repeats_natural,
    "Remember a name": names,
    "Tool call, varied tools and cities": tool_calls,
    "Tool call, get_weather, phrasings not trained": tool_calls_plain,
    "Answer from a tool's result": tool_answers,
    "Tools offered and not needed": tools_unused,
    "JSON object": objects,
    "JSON object, phrasings not trained": objects_held,
    "JSON object, keys given": objects_keyed,
    "JSON held to a schema by the engine": objects_forced,
    "Says that it does not know": unknown,
    "Says that it does not know, questions not trained": unknown_held,
    "Completion of bare text": completions,
}


def all_cases() -> dict[str, list[Case]]:
    return {
        name: list(make(Random(SEED + number))) for number, (name, make) in enumerate(TASKS.items())
    }
