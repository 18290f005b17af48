"""Reads the countries of the world and their capitals from `countries.tsv`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Country:
    name: str  # as inside a sentence: "the Netherlands"
    capital: str
    others: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.others)

    @property
    def title(self) -> str:
        """The name on its own, as in a JSON field."""
        return self.name.removeprefix("the ")

    @property
    def answer(self) -> str:
        return f"The capital of {self.name} is {self.capital}".rstrip(".") + "."


def read_countries() -> tuple[Country, ...]:
    text = (Path(__file__).parent / "countries.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines()[1:])
    return tuple(
        Country(name, capital, tuple(filter(None, others.split(";"))))
        for name, capital, others in rows
    )


COUNTRIES = read_countries()
