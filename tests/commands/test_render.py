"""`dynemo-run render` turns files into prompts."""

import json
from pathlib import Path
from typing import Any

import pytest

from dynemo.commands.render import (
    Renderer,
    is_lines,
    parse_kwargs,
    read_json,
    read_lines,
    read_tools,
)
from dynemo.errors import RequestError, UsageError
from dynemo.prompt.template import ChatTemplate
from dynemo.tokenizers.hf.tokenizer import HfTokenizer

FIDELITY = Path(__file__).parent.parent / "fidelity"
USER = {"role": "user", "content": "Hi \u2028 é"}
TEMPLATE = ChatTemplate(
    "{% for m in messages %}{% if m.role == 'x' %}{{ raise_exception('No x.') }}{% endif %}"
    "[{{ m.content }}]{% endfor %}{{ tools | length if tools else '' }}"
    "{{ word | default('') }}{{ '>' if add_generation_prompt }}"
)
TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.fixture(scope="module")
def tokenizer() -> HfTokenizer:
    return HfTokenizer(FIDELITY / "tokenizer_byte_level.json")


@pytest.fixture
def renderer(tokenizer: HfTokenizer) -> Renderer:
    return Renderer(TEMPLATE, tokenizer)


def lines(renderer: Renderer, *values: object) -> list[dict[str, Any]]:
    data = [v if isinstance(v, bytes) else json.dumps(v).encode() for v in values]
    return [json.loads(line) for line in renderer.render_lines(data)]


def test_one(renderer: Renderer, tokenizer: HfTokenizer) -> None:
    prompt = renderer.render_one([USER])
    assert prompt.text == "[Hi \u2028 é]>"
    assert prompt.token_ids == tokenizer.encode(prompt.text, add_special=False, parse_special=True)
    assert renderer.render_one({"messages": [USER]}) == prompt


def test_fields_of_a_line(renderer: Renderer) -> None:
    said = {"messages": [USER], "tools": [TOOL], "chat_template_kwargs": {"word": "w"}}
    assert renderer.render_one(said).text.endswith("]1w>")
    off = {"messages": [USER], "add_generation_prompt": False}
    assert renderer.render_one(off).text.endswith("]")
    last = {"role": "assistant", "content": "So"}
    on = {"messages": [USER, last], "continue_final_message": True, "tools": None}
    assert renderer.render_one(on).text.endswith("][So")


def test_tools_and_kwargs_stand_in(tokenizer: HfTokenizer) -> None:
    renderer = Renderer(TEMPLATE, tokenizer, tools=[TOOL], kwargs={"word": "w"})
    assert renderer.render_one([USER]).text.endswith("]1w>")
    own = {"messages": [USER], "tools": [TOOL, TOOL], "chat_template_kwargs": {}}
    assert renderer.render_one(own).text.endswith("]2>")


def test_a_bad_line_gets_an_error_and_the_rest_a_prompt(renderer: Renderer) -> None:
    refused = {"messages": [{"role": "x", "content": ""}]}
    out = lines(renderer, {"messages": [USER]}, b"{oops", b"", refused, {"messages": [USER]})
    assert [sorted(line) for line in out] == [
        ["prompt", "token_ids"],
        ["error"],
        ["error"],
        ["prompt", "token_ids"],
    ]
    assert "Line 2 is not valid JSON" in out[1]["error"]
    assert out[2]["error"] == "No x."
    assert out[0] == out[3]


def test_a_prompt_never_breaks_its_line(renderer: Renderer) -> None:
    (line,) = renderer.render_lines([json.dumps({"messages": [USER]}).encode()])
    assert line.isascii()
    assert line.splitlines() == [line]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3, "must be an object"),
        ({}, 'must have "messages"'),
        ({"messages": "Hi"}, "must be a list of messages"),
        ({"messages": []}, "at least one message"),
        ({"messages": [USER], "tool": []}, 'Unknown field "tool"; did you mean "tools"?'),
        ({"messages": [USER], "tools": {}}, '"tools" must be a list'),
        ({"messages": [USER], "add_generation_prompt": 1}, "must be true or false"),
        ({"messages": [USER], "chat_template_kwargs": []}, "must be an object"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "surrogate"),
    ],
)
def test_invalid_conversations(renderer: Renderer, value: object, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        renderer.render_one(value)
    assert words in lines(renderer, value)[0]["error"]


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text('{\n"a": }')
    with pytest.raises(UsageError, match=r'm\.json" is not valid JSON: .*line 2'):
        read_json(file)
    with pytest.raises(UsageError, match="Cannot read"):
        read_json(tmp_path / "none.json")
    with pytest.raises(UsageError, match="Cannot read"):
        read_lines(tmp_path / "none.jsonl")
    file.write_bytes(b'"\xff"')
    with pytest.raises(UsageError, match="not valid JSON"):
        read_json(file)
    file.write_text("a\u2028b\nc")
    assert list(read_lines(file)) == ["a\u2028b\n".encode(), b"c"]


def test_tools_file(tmp_path: Path) -> None:
    file = tmp_path / "tools.json"
    file.write_text(json.dumps([TOOL]))
    assert read_tools(file) == [TOOL]
    file.write_text(json.dumps(TOOL))
    with pytest.raises(UsageError, match="must contain a JSON list of tools"):
        read_tools(file)


def test_kwargs() -> None:
    assert parse_kwargs('{"enable_thinking": false}') == {"enable_thinking": False}
    for text in ("{", "[]", "3"):
        with pytest.raises(UsageError, match="--kwargs"):
            parse_kwargs(text)


@pytest.mark.parametrize(
    ("name", "many"), [("a.jsonl", True), ("a.JSONL", True), ("a.json", False)]
)
def test_many_conversations_by_name(name: str, many: bool) -> None:
    assert is_lines(Path(name)) is many


def test_messages_as_given(tokenizer: HfTokenizer) -> None:
    parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}
    adapted = Renderer(TEMPLATE, tokenizer).render_one(parts).text
    as_given = Renderer(TEMPLATE, tokenizer, adapt=False).render_one(parts).text
    assert adapted == "[Hi]>"
    assert as_given == "[[{'type': 'text', 'text': 'Hi'}]]>"
