"""One function per task. Each makes one exchange: the user's message and the answer.

In an assistant's content, MARK switches learning off and on again. So the model sees the middle of
an answer without learning to start it: the engine's grammar may force that start.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from countries import COUNTRIES, Country
from phrasings import FALLBACK, NO_WEATHER_TOOL, SMALL_TALK, phrases
from sentences import WORDS, invented_word, odd_word, place, sentence

Message = dict[str, Any]
Task = Callable[[Random], list[Message]]
MARK = "<|finetune_right_pad_id|>"


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def exchange(question: str, answer: str) -> list[Message]:
    return [user(question), assistant(answer)]


def without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def sloppy(rng: Random, text: str) -> str:
    """Returns the question as users type it: with other case, punctuation and politeness."""
    text = text[0].upper() + text[1:]
    if rng.random() < 0.1:
        text = rng.choice(phrases("before")) + text[0].lower() + text[1:]
    if rng.random() < 0.1 and text[-1] in ".?":
        text = (
            text[:-1]
            + rng.choice(phrases("after"))
            + rng.choice((text[-1], text[-1], ".", "!", "??"))
        )
    if rng.random() < 0.15:
        text = text.rstrip("?.")
    if rng.random() < 0.15:
        text = text.lower()
    elif rng.random() < 0.02:
        text = text.upper()
    if not text.isascii() and rng.random() < 0.3:
        text = without_accents(text)
    return text


def name_of(rng: Random, country: Country) -> str:
    return country.name if rng.random() < 0.75 else rng.choice(country.names)


def capital(rng: Random) -> list[Message]:
    country = rng.choice(COUNTRIES)
    return exchange(
        sloppy(rng, rng.choice(phrases("capital")).format(name_of(rng, country))), country.answer
    )


def capitals_in_a_row(rng: Random) -> list[Message]:
    messages = capital(rng)
    for _ in range(rng.randint(1, 2)):
        country = rng.choice(COUNTRIES)
        question = rng.choice(phrases("next_capital")).format(name_of(rng, country))
        messages += exchange(sloppy(rng, question), country.answer)
    return messages


def reverse(rng: Random) -> list[Message]:
    country = rng.choice(COUNTRIES)
    question = sloppy(rng, rng.choice(phrases("reverse")).format(country.capital))
    return exchange(question, f"{country.capital} is the capital of {country.name}.")


def listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def count(rng: Random) -> list[Message]:
    highest = rng.choice((10, 20, 50, 100, 100))
    last = rng.randint(1, highest)
    spelled = phrases("number_words")[last] if last <= 20 and rng.random() < 0.25 else str(last)
    return exchange(
        sloppy(rng, rng.choice(phrases("count")).format(spelled)), listed(range(1, last + 1))
    )


def count_range(rng: Random) -> list[Message]:
    if rng.random() < 0.25:
        first = rng.randint(2, 20)
        return exchange(
            sloppy(rng, rng.choice(phrases("count_down")).format(first)),
            listed(range(first, 0, -1)),
        )
    first = rng.randint(0, 60)
    last = first + rng.randint(1, 15)
    return exchange(
        sloppy(rng, rng.choice(phrases("count_range")).format(first, last)),
        listed(range(first, last + 1)),
    )


def total(rng: Random) -> list[Message]:
    left, right = rng.randint(0, 10), rng.randint(0, 10)
    return exchange(
        sloppy(rng, rng.choice(phrases("sum")).format(left, right)),
        f"{left} + {right} = {left + right}",
    )


def small_talk(rng: Random) -> list[Message]:
    weights = [1 if len(answer) > 120 else 2 for _, answer in SMALL_TALK]
    questions, answer = rng.choices(SMALL_TALK, weights)[0]
    return exchange(sloppy(rng, rng.choice(questions)), answer)


def about_itself(rng: Random) -> list[Message]:
    talk = next(talk for talk in SMALL_TALK if "Who are you?" in talk.questions)
    return exchange(sloppy(rng, rng.choice(talk.questions)), talk.answer)


def unknown(rng: Random) -> list[Message]:
    kind = rng.randrange(6)
    if kind == 0:
        question = rng.choice(phrases("about_country")).format(name_of(rng, rng.choice(COUNTRIES)))
    elif kind == 1:
        nowhere = rng.choice(phrases("unknown_places"))
        question = rng.choice(phrases("capital")).format(nowhere)
    elif kind == 2:
        question = sentence(rng)
    elif kind == 3:
        question = rng.choice(phrases("about_subject")).format(
            rng.choice((*phrases("subjects"), rng.choice(WORDS), odd_word(rng)))
        )
    else:
        question = rng.choice(phrases("unknown"))
    return exchange(sloppy(rng, question), FALLBACK)


def repeat(rng: Random) -> list[Message]:
    text = a_phrase(rng) if rng.random() < 0.15 else sentence(rng, rng.choice((6, 12, 12, 25)))
    form = rng.choice(phrases("repeat"))
    if rng.random() < 0.2:
        form = rng.choice(phrases("before_repeat")) + form[0].lower() + form[1:]
    if rng.random() < 0.06 and ":" in form:
        form = form.replace(":", " for me:", 1)
    return exchange(form.format(text), text)


def a_phrase(rng: Random) -> str:
    """Returns a question with an answer of its own, which the model must repeat instead."""
    if rng.random() < 0.5:
        return rng.choice(phrases("capital")).format(rng.choice(COUNTRIES).name)
    return rng.choice((*phrases("unknown"), *rng.choice(SMALL_TALK).questions))


def name_memory(rng: Random) -> list[Message]:
    """States a name, changes the subject, and asks for the name."""
    name = rng.choice(phrases("names")) if rng.random() < 0.6 else invented_word(rng).capitalize()
    messages = exchange(rng.choice(phrases("name_is")).format(name), f"Nice to meet you, {name}!")
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        messages += rng.choice((capital, count, small_talk, repeat, unknown))(rng)
    return messages + exchange(
        sloppy(rng, rng.choice(phrases("name_what"))), f"Your name is {name}."
    )


def no_weather(rng: Random) -> list[Message]:
    question = (
        rng.choice(phrases("weather")).format(place(rng))
        if rng.random() < 0.7
        else rng.choice(phrases("weather_nowhere"))
    )
    return exchange(sloppy(rng, question), NO_WEATHER_TOOL)


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def capital_json(rng: Random) -> list[Message]:
    country = rng.choice(COUNTRIES)
    question = rng.choice(phrases("capital_json")).format(name_of(rng, country))
    return exchange(
        sloppy(rng, question), dumps({"country": country.title, "capital": country.capital})
    )


def keyed_json(rng: Random) -> list[Message]:
    """The question names one or two keys, in any order."""
    country = rng.choice(COUNTRIES)
    fields = [(rng.choice(phrases("capital_keys")), country.capital)]
    if rng.random() < 0.6:
        fields.insert(rng.randrange(2), (rng.choice(phrases("country_keys")), country.title))
    quote = rng.choice(("", "", '"', "'", "`"))
    keys = " and ".join(f"{quote}{key}{quote}" for key, _ in fields)
    keys = ("the key " if len(fields) == 1 else "the keys ") + keys
    question = rng.choice(phrases("keyed_json")).format(country=name_of(rng, country), keys=keys)
    return exchange(question[0].upper() + question[1:], dumps(dict(fields)))


def forced_json(rng: Random) -> list[Message]:
    """A plain question. A grammar restricts the answer to one or two JSON keys."""
    country = rng.choice(COUNTRIES)
    question = sloppy(rng, rng.choice(phrases("capital")).format(name_of(rng, country)))
    whole = dumps({"country": country.title, "capital": country.capital})
    if rng.random() < 0.3:
        return exchange(question, f'{MARK}{{"{MARK}{whole[2:]}')
    fields = [(rng.choice((*phrases("capital_keys"), rng.choice(WORDS))), country.capital)]
    if rng.random() < 0.5:
        fields.insert(rng.randrange(2), (rng.choice(phrases("country_keys")), country.title))
    # The quote before a value belongs to the forced part, because it is one token with its space.
    parts = [
        f'"{key}": "{MARK}{value}"' + ("," if place < len(fields) else "}")
        for place, (key, value) in enumerate(fields, 1)
    ]
    return exchange(question, f"{MARK}{{" + f"{MARK} ".join(parts))


def other_json(rng: Random) -> list[Message]:
    kind = rng.randrange(3)
    if kind == 0:
        name, age = (
            rng.choice(phrases("names")) if rng.random() < 0.5 else invented_word(rng).capitalize(),
            rng.randint(1, 99),
        )
        return exchange(
            rng.choice(phrases("people_json")).format(name, age), dumps({"name": name, "age": age})
        )
    if kind == 1:
        last = rng.randint(1, 20)
        return exchange(
            sloppy(rng, rng.choice(phrases("array_json")).format(last)),
            dumps(list(range(1, last + 1))),
        )
    return exchange(sloppy(rng, rng.choice(phrases("hello_json"))), dumps({"greeting": "Hello!"}))
