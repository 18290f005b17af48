"""Judges guides for llama.cpp; see `engines/guides/child.py`."""

from functools import cache

from dynemo.engines.guides.bounds import extend_cpu
from dynemo.engines.guides.lark import LLGUIDANCE, as_lark, compact_schema
from dynemo.engines.guides.llguidance import GuideMatcher, NotExported, load_llguidance
from dynemo.engines.guides.probe import try_guide
from dynemo.engines.guides.verdict import GuideRefused, GuideUnsupported
from dynemo.engines.llama_cpp.gbnf import parse_grammar
from dynemo.engines.llama_cpp.stacks import check_growth
from dynemo.limits import GRAMMAR_SECONDS


@cache
def load() -> str:
    """Returns the path of llama.cpp's library, and loads it."""
    from xllamacpp import xllamacpp

    path: str = xllamacpp.__file__
    return path


def judge(kind: str, text: str) -> str:
    """Raises GuideRefused, GuideUnsupported."""
    if kind == "grammar":
        if text.startswith(LLGUIDANCE):
            raise GuideRefused("it must be written in GBNF")
        return _judge_gbnf(text)
    schema = compact_schema(text) if kind == "json_schema" else "{}"
    grammar = _of_schema(schema)
    if not grammar.startswith(LLGUIDANCE):  # a build without llguidance
        if kind == "json_schema":
            return _judge_gbnf(grammar)
        raise GuideUnsupported(
            "This build of llama.cpp follows JSON schemas and GBNF only. Install another version "
            "of xllamacpp."
        )
    if kind != "json_schema":
        grammar = as_lark(kind, text)
    try:
        try_guide(GuideMatcher(load_llguidance(load()), "lark", grammar, is_forcing=True))
    except NotExported:
        raise GuideUnsupported(
            "This build of llama.cpp cannot check JSON schemas. Install another version of "
            "xllamacpp."
        ) from None
    return grammar


def _of_schema(schema: str) -> str:
    """Returns the grammar that this build of llama.cpp makes of a JSON schema."""
    from xllamacpp import json_schema_to_grammar

    try:
        grammar: str = json_schema_to_grammar(schema)
    except ValueError as error:
        raise GuideRefused(str(error).removeprefix("json_schema_to_grammar: ")) from None
    return grammar


def _judge_gbnf(text: str) -> str:
    rules = parse_grammar(load(), text)
    extend_cpu(2 * GRAMMAR_SECONDS)  # the search ends by itself; the engine does not repeat it
    check_growth(rules, GRAMMAR_SECONDS)
    return text
