"""The laws of all formats: cutting changes nothing, nothing is lost, and time is linear."""

import itertools
import json
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynemo.answer.formats.format import Format, needed_marks
from dynemo.answer.formats.write import write_call
from support.answers import Parsed, formats, parse, tool

_FORMATS = formats()
_TOOLS = [
    tool("get_weather", city="string", days="integer", where={"type": "object"}),
    tool("add", a="integer", b={"anyOf": [{"type": "string"}, {"type": "integer"}]}),
]
_VALUES = {"city": "Rome", "days": 3}
_ARGUMENTS = '{"city": "Rome", "days": 3}'


def _marks(format: Format) -> tuple[str, ...]:
    return needed_marks(format, wants_calls=True, wants_reasoning=True)


def _call(format: Format) -> str:
    assert format.tools is not None
    return write_call(format.tools, "get_weather", _VALUES).removeprefix(">>>")


def _texts(name: str) -> st.SearchStrategy[str]:
    """Texts made of marks, calls, parts of calls, and other text."""
    format = _FORMATS[name]
    call = _call(format)
    parts = st.tuples(st.integers(0, len(call)), st.integers(0, len(call)))
    snippets = st.one_of(
        st.sampled_from([*_marks(format), call, call, "get_weather", "add", "all\n", "to=add"]),
        st.sampled_from(
            ["\n", " ", "{", "}", "[", "]", '"', "'", ",", ":", "(", ")", "=", "\\", "<"]
        ),
        st.sampled_from(
            [_ARGUMENTS, '"name"', '"arguments"', '"city"', "```json\n", "null", "1", "-"]
        ),
        parts.map(lambda ends: call[min(ends) : max(ends)]),
        st.text(max_size=5),
    )
    return st.lists(snippets, max_size=12).map("".join)


@st.composite
def _cut_texts(draw: st.DrawFn) -> tuple[str, str, list[str]]:
    name = draw(st.sampled_from(sorted(_FORMATS)))
    text = draw(_texts(name))
    places = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    edges = [0, *places, len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(edges)]
    return name, text, pieces


@settings(max_examples=600, deadline=None)
@given(_cut_texts(), st.booleans(), st.sampled_from([0, 5, 512]))
def test_cutting_changes_nothing(
    case: tuple[str, str, list[str]], is_open: bool, held: int
) -> None:
    name, text, pieces = case
    format = _FORMATS[name]
    whole = parse(format, _TOOLS, [text], reasoning_open=is_open, held=held)
    assert parse(format, _TOOLS, pieces, reasoning_open=is_open, held=held) == whole
    assert parse(format, _TOOLS, text, reasoning_open=is_open, held=held) == whole


@settings(max_examples=600, deadline=None)
@given(_cut_texts(), st.booleans())
def test_an_answer_without_calls_is_complete(
    case: tuple[str, str, list[str]], is_open: bool
) -> None:
    name, text, pieces = case
    format = _FORMATS[name]
    said = parse(format, _TOOLS, pieces, reasoning_open=is_open)
    if not said.calls:
        assert _bare(said.reasoning + said.content, format) == _bare(text, format)


@settings(max_examples=500, deadline=None)
@given(_cut_texts())
def test_a_call_that_is_sent_has_valid_arguments(case: tuple[str, str, list[str]]) -> None:
    name, _, pieces = case
    for call in parse(_FORMATS[name], _TOOLS, pieces).calls:
        assert isinstance(json.loads(call.arguments), dict)


def _bare(text: str, format: Format) -> str:
    """A text without white space and marks, in which only the order of characters counts."""
    names = [format.tools.content_name] if format.tools and format.tools.content_name else []
    marks = sorted([*_marks(format), *names], key=len, reverse=True)
    before = None
    while before != text:
        before = text
        text = re.sub("|".join(map(re.escape, marks)), "", re.sub(r"\s", "", text))
    return "".join(sorted(text))


@pytest.mark.parametrize("name", sorted(_FORMATS))
def test_a_call_is_read(name: str) -> None:
    said = parse(_FORMATS[name], _TOOLS, [_call(_FORMATS[name])])
    assert (said.content, said.reasoning) == ("", "")
    assert [(call.name, json.loads(call.arguments)) for call in said.calls] == [
        ("get_weather", {"city": "Rome", "days": 3})
    ]


@pytest.mark.parametrize("name", sorted(_FORMATS))
def test_a_call_that_is_cut_off_is_text(name: str) -> None:
    format, call = _FORMATS[name], _call(_FORMATS[name])
    for end in range(len(call)):
        said = parse(format, _TOOLS, call[:end])
        if said.calls:  # only marks are missing
            assert said == parse(format, _TOOLS, [call])
            assert end > call.rindex("3")
        else:
            assert said == Parsed(call[:end] if call[:end].strip() else said.content, "", [])


def _floods(format: Format) -> list[str]:
    """Texts that cost much if they are repeated."""
    call = _call(format)
    others = ["{", "[", '{"name": ', "\n", "<", '"\\', "get_weather("]
    return [call, call[: len(call) // 2], call[:-1], *_marks(format), *others]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(_FORMATS))
def test_time_is_linear(name: str) -> None:
    format = _FORMATS[name]
    for flood in _floods(format):
        text = flood * (20_000 // len(flood))
        pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
        started = time.process_time()
        for is_open in (False, True):
            parse(format, _TOOLS, [text], reasoning_open=is_open)
            parse(format, _TOOLS, pieces, reasoning_open=is_open)
        assert time.process_time() - started < 4, flood  # usually 0.2 s; quadratic time is 10 s


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "flood", ["<", "<tool_call>", '<tool_call>{"name": "add", "arguments": {"a":']
)
def test_a_hostile_megabyte_is_read(flood: str) -> None:
    text = flood * (2**20 // len(flood))
    started = time.process_time()
    said = parse(_FORMATS["hermes"], _TOOLS, [text])
    assert said.content == text
    assert time.process_time() - started < 60  # usually 4 s
