"""The guide of the rest of an answer allows exactly what the guide of the whole would allow there.

llguidance is the reference: it follows the whole guide through the answer, and then both must allow
the same next bytes.
"""

import random
from collections.abc import Iterator
from contextlib import closing

import pytest

from dynemo.engines.guides.lark import as_lark
from dynemo.engines.guides.llguidance import GuideMatcher, load_llguidance
from dynemo.engines.guides.rest.errors import CannotContinue
from dynemo.engines.guides.rest.rest import rest_of
from dynemo.engines.llama_cpp.guide import load
from dynemo.messages.request import Guide, GuideKind
from support.guided_schemas import ADVANCED, SCHEMAS
from support.guides import CHOICES, as_text

#: Bytes that a walk prefers: the others make answers that look alike.
_USUAL = b'abAB01259 "\\u/n,:}]{[.-eE+@' + "é😀中".encode()
_ENDS = b'"}]'
_BYTES = 90

REGEXES = [
    r"[a-c]{2,4}x?",
    "(yes|no)( (yes|no)){0,3}",
    r"\d{4}-\d{2}",
    r"-?\d+(\.\d{1,2})?",
    "^(a|b)*c$",
    "[^a]{3}",
    "(a|ab)(c|bcd)",
    r"é+|\x41\u{42}/[]\]^-]+",
    "(?:x+x+)+y",
    "(?P<n>a.b)?",
    "",
]


def _matcher(kind: GuideKind, text: str) -> GuideMatcher:
    return GuideMatcher(load_llguidance(load()), "lark", as_lark(kind, text))


def _walk(kind: GuideKind, text: str, seed: int) -> str:
    """Returns an answer, or the begin of one."""
    choose = random.Random(seed)
    answer = b""
    with closing(_matcher(kind, text)) as matcher:
        for _ in range(_BYTES):
            allowed = matcher.allowed()
            if not allowed or (matcher.is_complete() and choose.random() < 0.3):
                break
            ends = [byte for byte in allowed if byte in _ENDS]
            usual = [byte for byte in allowed if byte in _USUAL] or list(allowed)
            byte = choose.choice(ends if ends and choose.random() < 0.35 else usual)
            assert matcher.feed(bytes([byte])) == 1
            answer += bytes([byte])
    return answer.decode(errors="ignore")


def _differences(kind: GuideKind, text: str, seeds: range) -> Iterator[str]:
    """Yields each begin of an answer after which the two guides differ."""
    for seed in seeds:
        answer = _walk(kind, text, seed)
        with closing(_matcher(kind, text)) as whole:
            for end, character in enumerate(answer, 1):
                whole.feed(character.encode())
                rest = rest_of(Guide(kind, text, answer[:end]))
                with closing(_matcher(rest.kind, rest.text)) as other:
                    here = whole.allowed(), whole.is_complete()
                    if here != (other.allowed(), other.is_complete()):
                        yield answer[:end]


@pytest.mark.parametrize("name", ADVANCED)
def test_the_rest_of_json_allows_the_same(name: str) -> None:
    assert list(_differences("json_schema", as_text(SCHEMAS[name]), range(2))) == []


_IMPOSSIBLE = {
    "type": "object",
    "properties": {"abc": {"type": "null"}},
    "required": ["abc", "zzz"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"type": "object", "required": ["b"]}, _IMPOSSIBLE]},
        {
            "type": "object",
            "properties": {"a": {"type": "array", "items": _IMPOSSIBLE, "minItems": 1}, "b": {}},
        },
        {"anyOf": [{"type": "null"}, {"type": "integer"}, {"$ref": "#"}]},
    ],
)
def test_choices_that_lead_nowhere_are_left_out(schema: object) -> None:
    assert list(_differences("json_schema", as_text(schema), range(6))) == []


@pytest.mark.parametrize("pattern", REGEXES)
def test_the_rest_of_a_regex_allows_the_same(pattern: str) -> None:
    assert list(_differences("regex", pattern, range(4))) == []


@pytest.mark.parametrize("name", sorted(CHOICES.keys() - {"many"}))
def test_the_rest_of_a_choice_allows_the_same(name: str) -> None:
    assert list(_differences("choice", as_text(CHOICES[name]), range(4))) == []


@pytest.mark.parametrize(
    ("guide", "reason"),
    [
        (Guide("lark", 'start: "ab"', "a"), "guides of this kind cannot be advanced"),
        (Guide("grammar", 'root ::= "ab"', "a"), "guides of this kind cannot be advanced"),
        (Guide("choice", '["ab"]', "b"), "the answer does not fit it"),
        (Guide("regex", "ab", "b"), "the answer does not fit it"),
        (Guide("regex", r"\p{L}+", "b"), r"its regex has the escape \p"),
        (Guide("regex", "(?i)ab", "a"), "flags or looks around"),
        (Guide("json_schema", '{"type":"integer"}', '"'), "the answer does not fit it"),
        (Guide("json_schema", '{"multipleOf":3,"type":"integer"}', "1"), "within a value"),
        (
            Guide("json_schema", '{"x-guidance":{"whitespace_flexible":true}}', "{"),
            "how llguidance shall follow it",
        ),
    ],
)
def test_what_cannot_be_advanced_says_why(guide: Guide, reason: str) -> None:
    with pytest.raises(CannotContinue) as caught:
        rest_of(guide)
    assert reason in str(caught.value)


def test_behind_a_value_that_cannot_be_advanced_the_rest_is_known() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "multipleOf": 3}, "b": {"type": "boolean"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    with pytest.raises(CannotContinue):
        rest_of(Guide("json_schema", as_text(schema), '{"a":1'))
    rest = rest_of(Guide("json_schema", as_text(schema), '{"a":12,"b"'))
    with closing(_matcher(rest.kind, rest.text)) as matcher:
        assert matcher.feed(b":true}") == 6
        assert matcher.is_complete()


def test_a_choice_between_values_that_were_not_followed_exactly_is_refused() -> None:
    schema = {
        "anyOf": [
            {"type": "array", "prefixItems": [{"type": "integer", "multipleOf": 2}], "maxItems": 2},
            {"type": "array", "prefixItems": [{"type": "integer", "multipleOf": 3}]},
        ]
    }
    with pytest.raises(CannotContinue, match="several of its choices"):
        rest_of(Guide("json_schema", as_text(schema), "[6,"))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('{"type":"string"}', '"' + "x" * 200_000),
        ('{"type":"array"}', "[" * 3000),
        ('{"type":"array","items":{"type":"string"}}', '["a",' + '"b\\\\u00e9",' * 20_000),
    ],
)
def test_a_long_answer_is_followed_in_time(text: str, written: str) -> None:
    """The judging process has two seconds of CPU time for it."""
    assert rest_of(Guide("json_schema", text, written)).kind == "lark"
