"""Guides that would stop an engine, and guides that it must follow, judged with its own parsers."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from dynemo.engines.guides.judge import open_judge
from dynemo.errors import RequestError
from dynemo.messages.request import Guide, GuideKind
from support.guides import (
    CHOICES,
    GRAMMARS,
    HOSTILE_CHOICES,
    HOSTILE_GRAMMARS,
    HOSTILE_LARKS,
    HOSTILE_REGEXES,
    HOSTILE_SCHEMAS,
    LARKS,
    REGEXES,
    SCHEMAS,
    as_text,
)

pytestmark = pytest.mark.processes


def _refusals(engine: str, guides: Mapping[str, Guide]) -> dict[str, str]:
    """Judges all guides. Returns the refusal of each, "" for those that passed."""

    async def judged() -> dict[str, str]:
        said = {}
        async with open_judge(f"dynemo.engines.{engine}.guide") as judge:
            for name, guide in guides.items():
                try:
                    text = await judge.judge(guide)
                    said[name] = "" if text else "empty"
                except RequestError as error:
                    said[name] = f"{error.param}: {error}"
        return said

    return asyncio.run(judged())


def test_llama_cpp_follows_usual_grammars() -> None:
    said = _refusals("llama_cpp", {name: Guide("grammar", text) for name, text in GRAMMARS.items()})
    assert said == dict.fromkeys(GRAMMARS, "")


def test_llama_cpp_gets_no_hostile_grammar() -> None:
    guides = {name: Guide("grammar", text) for name, (text, _) in HOSTILE_GRAMMARS.items()}
    said = _refusals("llama_cpp", guides)
    for name, (_, reason) in HOSTILE_GRAMMARS.items():
        assert said[name].startswith("guide: The GBNF grammar cannot be followed: "), name
        assert reason in said[name], name
        assert len(said[name]) < 300


@pytest.mark.parametrize("engine", ["llama_cpp", "mistralrs"])
def test_engines_follow_usual_schemas(engine: str) -> None:
    guides = {name: Guide("json_schema", as_text(schema)) for name, schema in SCHEMAS.items()}
    assert len(guides["tools"].text) > 50_000
    assert _refusals(engine, guides) == dict.fromkeys(SCHEMAS, "")


@pytest.mark.parametrize("engine", ["llama_cpp", "mistralrs"])
def test_engines_get_no_hostile_schema(engine: str) -> None:
    guides = {
        name: Guide("json_schema", as_text(schema)) for name, (schema, _) in HOSTILE_SCHEMAS.items()
    }
    said = _refusals(engine, guides)
    for name, (_, reason) in HOSTILE_SCHEMAS.items():
        assert said[name].startswith("guide: The JSON schema cannot be followed: "), name
        assert reason in said[name], name
        assert len(said[name]) < 300


#: Kind, usual guides, hostile guides with their refusals, and how a refusal names the kind.
OTHERS: list[tuple[GuideKind, Mapping[str, Any], Mapping[str, tuple[Any, str]], str]] = [
    ("regex", REGEXES, HOSTILE_REGEXES, "regex"),
    ("choice", CHOICES, HOSTILE_CHOICES, "list of choices"),
    ("lark", LARKS, HOSTILE_LARKS, "Lark grammar"),
]


def _text(guide: Any) -> str:
    return guide if isinstance(guide, str) else as_text(guide)


@pytest.mark.parametrize(("kind", "usual", "hostile", "name"), OTHERS)
@pytest.mark.parametrize("engine", ["llama_cpp", "mistralrs"])
def test_other_kinds_are_followed_or_refused_by_name(
    engine: str,
    kind: GuideKind,
    usual: Mapping[str, Any],
    hostile: Mapping[str, tuple[Any, str]],
    name: str,
) -> None:
    guides = {key: Guide(kind, _text(guide)) for key, guide in usual.items()}
    assert _refusals(engine, guides) == dict.fromkeys(usual, "")
    said = _refusals(
        engine, {key: Guide(kind, _text(guide)) for key, (guide, _) in hostile.items()}
    )
    for key, (_, reason) in hostile.items():
        assert said[key].startswith(f"guide: The {name} cannot be followed: "), key
        assert reason in said[key], (key, said[key])
        assert len(said[key]) < 300
