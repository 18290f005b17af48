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


#: The module of guides of each engine; `wheel` is that of vLLM, SGLang and TensorRT-LLM.
MODULES = {
    "llama_cpp": "dynemo.engines.llama_cpp.guide",
    "mistralrs": "dynemo.engines.mistralrs.guide",
    "wheel": "dynemo.engines.guides.wheel",
}


def _refusals(engine: str, guides: Mapping[str, Guide]) -> dict[str, str]:
    """Judges all guides. Returns the refusal of each, "" for those that passed."""

    async def judged() -> dict[str, str]:
        said = {}
        async with open_judge(MODULES[engine]) as judge:
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


@pytest.mark.parametrize("engine", MODULES)
def test_engines_follow_usual_schemas(engine: str) -> None:
    guides = {name: Guide("json_schema", as_text(schema)) for name, schema in SCHEMAS.items()}
    assert len(guides["tools"].text) > 50_000
    assert _refusals(engine, guides) == dict.fromkeys(SCHEMAS, "")


@pytest.mark.parametrize("engine", MODULES)
def test_engines_get_no_hostile_schema(engine: str) -> None:
    guides = {
        name: Guide("json_schema", as_text(schema)) for name, (schema, _) in HOSTILE_SCHEMAS.items()
    }
    said = _refusals(engine, guides)
    for name, (_, reason) in HOSTILE_SCHEMAS.items():
        assert said[name].startswith("guide: The JSON schema cannot be followed: "), name
        assert reason in said[name], name
        assert len(said[name]) < 300


#: Newer versions of llguidance do not write out the items of an array.
_LAZY = "many items"

#: Kind, usual guides, hostile guides with their refusals, and how a refusal names the kind.
OTHERS: list[tuple[GuideKind, Mapping[str, Any], Mapping[str, tuple[Any, str]], str]] = [
    ("regex", REGEXES, HOSTILE_REGEXES, "regex"),
    ("choice", CHOICES, HOSTILE_CHOICES, "list of choices"),
    ("lark", LARKS, HOSTILE_LARKS, "Lark grammar"),
]


def _text(guide: Any) -> str:
    return guide if isinstance(guide, str) else as_text(guide)


@pytest.mark.parametrize(("kind", "usual", "hostile", "name"), OTHERS)
@pytest.mark.parametrize("engine", MODULES)
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
        if engine == "wheel" and key == _LAZY:
            continue
        assert said[key].startswith(f"guide: The {name} cannot be followed: "), key
        assert reason in said[key], (key, said[key])
        assert len(said[key]) < 300


TAG = {
    "structures": [{"begin": "<f>", "schema": {"type": "object"}, "end": "</f>"}],
    "triggers": ["<f"],
}
BAD_TAGS: dict[str, tuple[Any, str]] = {
    "another form": ({"format": {}}, "it must have structures and triggers"),
    "no structure": ({"structures": [], "triggers": []}, "it has no structure"),
    "no trigger": ({**TAG, "triggers": ["x"]}, 'no trigger begins the structure "<f>"'),
    "an empty trigger": ({**TAG, "triggers": [""]}, "no trigger begins the structure"),
    "a wrong schema": (
        {"structures": [{"begin": "<f>", "schema": {"type": "objekt"}, "end": ""}],
         "triggers": ["<f>"]},
        "Invalid type: objekt",
    ),
    "a hostile schema": (
        {"structures": [{"begin": "<f>", "schema": {"minItems": 10**9}, "end": ""}],
         "triggers": ["<f>"]},
        "may be 20000 in sum",
    ),
}  # fmt: skip


def test_structural_tags_are_followed_or_refused() -> None:
    assert _refusals("wheel", {"tag": Guide("structural_tag", as_text(TAG))}) == {"tag": ""}
    said = _refusals(
        "wheel",
        {name: Guide("structural_tag", as_text(tag)) for name, (tag, _) in BAD_TAGS.items()},
    )
    for name, (_, reason) in BAD_TAGS.items():
        assert said[name].startswith("guide: The structural tag cannot be followed: "), name
        assert reason in said[name], said[name]


def test_gbnf_becomes_lark_for_engines_without_it() -> None:
    names = set(GRAMMARS) - {"tokens", "odd"}
    guides = {name: Guide("grammar", GRAMMARS[name]) for name in names}
    said = _refusals("wheel", guides)
    assert said == dict.fromkeys(names, "")
    assert "it is not valid GBNF" in _refusals("wheel", {"a": Guide("grammar", "root :=")})["a"]
