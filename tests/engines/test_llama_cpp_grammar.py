import asyncio
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from dynemo.engines.guides import llguidance
from dynemo.engines.guides.verdict import GuideRefused, GuideUnsupported, refused
from dynemo.engines.llama_cpp import gbnf
from dynemo.engines.llama_cpp.grammar import Grammar, open_grammar
from dynemo.engines.llama_cpp.guide import judge
from dynemo.errors import EngineError, RequestError
from dynemo.messages.answer import Delta, Finish, FinishReason

ITEMS = '{"type":"array","items":{"type":"integer"}}'


@contextmanager
def _opened(schema: str) -> Iterator[Grammar]:
    with closing(asyncio.run(open_grammar(judge("json_schema", schema)))) as grammar:
        yield grammar


def _delta(*texts: str, reason: FinishReason | None = None) -> Delta:
    return Delta(texts=list(texts), finish=Finish(reason, 1, 1) if reason else None)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ('{"type":"objekt"}', "cannot be followed: Invalid type: objekt."),
        ('{"type":"string","pattern":"(("}', "regex parse error: unclosed group."),
        ('{"$ref":"#"}', "'$ref' leads back to itself at"),
        ('{"enum":[]}', "Unsatisfiable schema"),
        ('{"minItems":20001}', "'minItems' and 'maxItems' may be 20000 in sum."),
    ],
)
def test_the_error_names_the_fault_in_a_schema(schema: str, said: str) -> None:
    with pytest.raises(GuideRefused) as caught:
        judge("json_schema", schema)
    assert said in str(refused(str(caught.value)))


def test_a_schema_is_checked_as_llama_cpp_writes_it() -> None:
    with _opened('{"const":12345678901234567890123}') as grammar:
        assert grammar.text.endswith(',"const":1.2345678901234568e+22}')


def test_an_answer_may_come_in_any_parts_and_end_early_only_at_its_limit() -> None:
    with _opened('{"type":"object","properties":{"é":{"type":"integer"}}}') as grammar:
        for text in ("", "{", '"', "é", '": ', "1"):
            grammar.check(_delta(text))
        grammar.check(_delta("2", reason="length"))
    with _opened(ITEMS) as grammar:
        grammar.check(_delta("[1", "", ",2", "]"))
        grammar.check(_delta(reason="stop"))


COMPACT = '{"type":"array","items":{"enum":[1,"a"]},"x-guidance":{"whitespace_flexible":false}}'


@pytest.mark.parametrize("texts", [[" [", "1", "]"], ["[", " 1", ",", " 1", " ]"]])
def test_a_space_that_llama_cpp_hides_may_stand_between_two_parts(texts: list[str]) -> None:
    with _opened(COMPACT) as grammar:
        for text in texts:
            grammar.check(_delta(text))
        grammar.check(_delta(reason="stop"))


@pytest.mark.parametrize("text", ["1 1]", '" a"]', '"a "]', "1] "])
def test_a_space_within_a_part_is_an_error(text: str) -> None:
    with _opened(COMPACT) as grammar:
        grammar.check(_delta("["))
        with pytest.raises(EngineError, match="stopped following the guide"):
            grammar.check(_delta(text))


def test_an_answer_that_leaves_its_schema_is_an_error() -> None:
    with _opened(ITEMS) as grammar:
        grammar.check(_delta("[", "1"))
        with pytest.raises(EngineError, match=r"stopped following the guide after 2 tokens"):
            grammar.check(_delta('"'))
    with _opened(ITEMS) as grammar:
        grammar.check(_delta("[1"))
        with pytest.raises(EngineError, match="stopped following the guide"):
            grammar.check(_delta(reason="stop"))


@pytest.mark.parametrize("delta", [_delta("Hello"), _delta(reason="stop")])
def test_an_answer_that_begins_without_its_schema_is_refused(delta: Delta) -> None:
    with _opened(ITEMS) as grammar, pytest.raises(RequestError, match="does not follow it"):
        grammar.check(delta)


def test_a_grammar_is_left_to_llama_cpp() -> None:
    with closing(asyncio.run(open_grammar('root ::= "a"'))) as grammar:
        assert grammar.text == 'root ::= "a"'
        grammar.check(_delta("b"))


def test_a_build_without_llguidance_gets_gbnf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xllamacpp.json_schema_to_grammar", lambda schema: 'root ::= "{}"')
    with _opened("{}") as grammar:
        assert grammar.text == 'root ::= "{}"'


def test_a_schema_that_llama_cpp_cannot_convert_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(schema: str) -> str:
        raise ValueError("json_schema_to_grammar: Unrecognized schema: {}.")

    monkeypatch.setattr("xllamacpp.json_schema_to_grammar", convert)
    with pytest.raises(GuideRefused, match=re.escape("Unrecognized schema: {}.")):
        judge("json_schema", "{}")


@pytest.mark.parametrize(("kind", "text"), [("json_schema", "{}"), ("grammar", 'root ::= "a"')])
def test_a_build_that_does_not_export_its_parsers_follows_no_guide(
    monkeypatch: pytest.MonkeyPatch, kind: str, text: str
) -> None:
    class Library:
        def __init__(self, path: str) -> None:
            pass

    monkeypatch.setattr("ctypes.CDLL", Library)
    caches = (llguidance.load_llguidance, gbnf._load)
    for cache in caches:
        cache.cache_clear()
    try:
        with pytest.raises(GuideUnsupported, match="Install another version of xllamacpp"):
            judge(kind, text)
    finally:
        for cache in caches:
            cache.cache_clear()
