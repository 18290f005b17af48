"""Generates new sentences, words and places for copying."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

from countries import COUNTRIES
from phrasings import trained_texts

HERE = Path(__file__).parent
WORDS = (HERE / "words.txt").read_text(encoding="utf-8").split()
CITIES = tuple(
    city.replace("_", " ") for city in (HERE / "cities.txt").read_text(encoding="utf-8").split()
)
# The words of all other tasks: the model must copy them, too, if a sentence contains them.
OTHER_WORDS = sorted(
    {word for text in trained_texts() for word in re.findall(r"[\w'+-]+", text)}
    | {word for country in COUNTRIES for word in f"{country.name} {country.capital}".split()}
)
STARTS = (
    "b",
    "br",
    "c",
    "ch",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "kl",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "qu",
    "r",
    "s",
    "sh",
    "sk",
    "st",
    "t",
    "th",
    "tr",
    "v",
    "w",
    "y",
    "z",
    "",
)
VOWELS = ("a", "e", "i", "o", "u", "a", "e", "i", "o", "ai", "ea", "ou", "oo", "é", "ö", "ü")
ENDS = ("", "", "", "n", "r", "s", "t", "l", "m", "nd", "ck", "rg", "st", "x", "ng", "ll", "rt")
SYMBOLS = (
    "🎉",
    "🙂",
    "👋",
    "🚀",
    "❤️",
    "🌍",
    "☕",
    "🐶",
    "→",
    "€",
    "°C",
    "½",
    "你好",
    "日本",
    "мир",
    "привет",
    "γειά",
    "שלום",
    "नमस्ते",
    "한국",
    "naïve",
    "café",
    "Straße",
    "Ærø",
    "déjà vu",
    "©",
    "👩‍💻",
    "🇿🇦",
    "…",
    "“so”",
)


def invented_word(rng: Random) -> str:
    syllables = rng.choice((1, 2, 2, 3))
    return "".join(
        rng.choice(STARTS) + rng.choice(VOWELS) + rng.choice(ENDS) for _ in range(syllables)
    )


def any_word(rng: Random) -> str:
    return rng.choice(WORDS if rng.random() < 0.8 else OTHER_WORDS)


def blended_word(rng: Random) -> str:
    """Combines the start of one word with the end of another, which looks like English."""
    head, tail = rng.choice(WORDS), rng.choice(WORDS)
    return head[: rng.randint(1, 4)] + tail[-rng.randint(2, 5) :]


def odd_word(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.55:
        word = invented_word(rng) if kind < 0.3 else blended_word(rng)
        return word.capitalize() if rng.random() < 0.3 else word
    if kind < 0.7:
        return rng.choice(CITIES)
    if kind < 0.85:
        return str(rng.randrange(10 ** rng.randint(1, 5)))
    return rng.choice(SYMBOLS)


def sentence(rng: Random, longest: int = 12) -> str:
    """Returns one to `longest` words. Half of the sentences contain unusual words."""
    odd = rng.choice((0, 0, 0, 0.1, 0.3, 0.9))
    count = rng.randint(1, longest)
    words = [odd_word(rng) if rng.random() < odd else any_word(rng) for _ in range(count)]
    for place in range(len(words) - 1):
        if rng.random() < 0.04:
            words[place] += rng.choice(("'s", "n't", f"-{rng.choice(WORDS)}"))
        if rng.random() < 0.05:
            words[place] += rng.choice((",", ",", ";", ":"))
    text = " ".join(words)
    if rng.random() < 0.85:
        text = text[0].upper() + text[1:]
    return text + rng.choice((".", ".", ".", ".", "!", "?", ""))


def place(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.55:
        return rng.choice(CITIES)
    if kind < 0.9:
        return invented_word(rng).capitalize()
    first = rng.choice(("New", "Port", "San", "Bad", "Saint", "Upper"))
    return f"{first} {invented_word(rng).capitalize()}"
