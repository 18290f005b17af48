"""Adapts the messages of clients to each template."""

import re
from collections.abc import Sequence
from typing import Any

import pytest

from dynemo.api.openai.read import read_turns
from dynemo.errors import RequestError, UnsupportedField
from dynemo.messages.ask import text_turn
from dynemo.prompt.render import RenderInput, build_prompt, render_prompt
from dynemo.prompt.template import ChatTemplate
from dynemo.tokenizers.hf.tokenizer import HfTokenizer
from support.fidelity_data import FOLDER, conversations, goldens, manifest, template

Json = dict[str, Any]
USER = {"role": "user", "content": "Hi"}
HI = text_turn("user", "Hi")

#: Exact renderings of text parts that a server should not copy: these templates drop the text, or
#: print the parts as JSON. They read strings, so they get strings.
_JOINED = {
    ("HuggingFaceTB-SmolLM3-3B", "content_parts_history"),
    ("LFM2-8B-A1B", "content_parts_history"),
    ("trl-lfm2", "content_parts_history"),
    ("trl-qwen3", "content_parts_history"),
    ("trl-qwen3_training", "content_parts_history"),
}


def prompt_of(name: str, conversation: str, kwargs: Json) -> str | None:
    entry = conversations()[conversation]
    try:
        return render_prompt(
            template(name),
            RenderInput(read_turns(entry["messages"]), entry["tools"], kwargs=kwargs),
        ).plain
    except RequestError:
        return None


@pytest.mark.parametrize("name", sorted(manifest()))
def test_adapting_changes_no_exact_rendering(name: str) -> None:
    failures = [
        golden["conversation"]
        for golden in goldens()[name]
        if golden["use"] == "exact" and (name, golden["conversation"]) not in _JOINED
        if prompt_of(name, golden["conversation"], golden["kwargs"]) != golden["rendered"]
    ]
    assert not failures


@pytest.mark.parametrize("name", sorted(manifest()))
def test_an_input_gives_the_prompt_of_its_equivalent(name: str) -> None:
    rendered = {g["conversation"]: g.get("rendered") for g in goldens()[name]}
    failures = []
    for golden in goldens()[name]:
        conversation = golden["conversation"]
        equivalent = conversations()[conversation].get("server_equivalent", "")
        others = re.findall(r"\w+", equivalent)
        expected = {rendered[other] for other in others if rendered.get(other)}
        if not expected:
            continue
        if "rendered" in golden:
            expected.add(golden["rendered"])
        if prompt_of(name, conversation, golden["kwargs"]) not in expected:
            failures.append(conversation)
    assert not failures


@pytest.mark.parametrize("name", sorted(manifest()))
def test_no_tools_look_like_none(name: str) -> None:
    messages = conversations()["tools_empty_list"]["messages"]
    assert render_outcome(name, messages, []) == render_outcome(name, messages, None)


def render_outcome(name: str, messages: Sequence[Json], tools: list[Json] | None) -> str:
    try:
        return render_prompt(template(name), RenderInput(read_turns(messages), tools)).plain
    except RequestError as error:
        return f"error: {error}"


STRINGS = ChatTemplate("{% for m in messages %}[{{ m.content + '' }}]{% endfor %}")
PARTS = ChatTemplate(
    "{% for m in messages %}[{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}]{% endfor %}"
)
ONLY_PARTS = ChatTemplate(
    "{% for m in messages %}[{% for p in m.content %}{{ p.text }}{% endfor %}]{% endfor %}"
)
FIRST_PART = ChatTemplate(
    "{% for m in messages %}[{{ m.content if m.content is string else m.content[0].text }}]"
    "{% endfor %}"
)


def two_parts(first: Json | str = "a", second: Json | str = "b") -> list[Json]:
    parts = [{"type": "text", "text": p} if isinstance(p, str) else p for p in (first, second)]
    return [{"role": "user", "content": parts}]


@pytest.mark.parametrize(
    ("template", "text"),
    [(STRINGS, "[a\nb]"), (PARTS, "[ab]"), (ONLY_PARTS, "[ab]"), (FIRST_PART, "[a\nb]")],
)
def test_parts_are_joined_unless_the_template_prints_them_all(
    template: ChatTemplate, text: str
) -> None:
    assert render_prompt(template, RenderInput(read_turns(two_parts()))).plain == text


def test_parts_of_other_kinds() -> None:
    refusal = two_parts("a", {"type": "refusal", "refusal": "no"})
    assert render_prompt(STRINGS, RenderInput(read_turns(refusal))).plain == "[a\nno]"
    picture = two_parts("a", {"type": "image_url", "image_url": {"url": "data:"}})
    with pytest.raises(UnsupportedField, match="image_url") as caught:
        render_prompt(STRINGS, RenderInput(read_turns(picture)))
    assert caught.value.param == "messages[0].content[1]"


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ("hello", "messages"),
        (["hello"], "messages[0]"),
        ([{"content": "x"}], "messages[0].role"),
        ([USER, {"role": "user", "content": 3}], "messages[1].content"),
        ([{"role": "user", "content": [3]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([], "messages"),
    ],
)
def test_invalid_messages(messages: Any, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        render_prompt(STRINGS, RenderInput(read_turns(messages)))
    assert caught.value.param == param


def call(arguments: object) -> list[Json]:
    function = {"name": "f", "arguments": arguments}
    calls = [{"id": "abcdef123", "type": "function", "function": function}]
    return [USER, {"role": "assistant", "content": None, "tool_calls": calls}]


_CALLS = "{% for c in messages[1].tool_calls or [] %}"
OBJECTS = ChatTemplate(_CALLS + "{{ c.function.arguments | tojson }}{% endfor %}")
JOINS = ChatTemplate(_CALLS + "{{ '<' + c.function.arguments + '>' }}{% endfor %}")


@pytest.mark.parametrize(
    ("template", "arguments", "text"),
    [
        (OBJECTS, '{"a": "\\ud800 \\ud83d\\ude00"}', '{"a": "\ufffd 😀"}'),
        (OBJECTS, '{"a": 1e16, "b": [null]}', '{"a": 1e+16, "b": [null]}'),
        (OBJECTS, {"a": 1}, '{"a": 1}'),
        (OBJECTS, "", "{}"),
        (OBJECTS, "{broken", '"{broken"'),
        (OBJECTS, "3", '"3"'),
        (JOINS, '{"a":1}', '<{"a":1}>'),
    ],
)
def test_arguments_of_calls(template: ChatTemplate, arguments: object, text: str) -> None:
    messages = call(arguments)
    assert render_prompt(template, RenderInput(read_turns(messages))).plain == text
    assert messages == call(arguments)


def test_an_empty_list_of_calls_is_none() -> None:
    keys = ChatTemplate("{{ messages[0] | list }}")
    message = {"role": "assistant", "content": "x", "tool_calls": []}
    assert render_prompt(keys, RenderInput(read_turns([message]))).plain == "['role', 'content']"


def test_empty_text_stands_in_where_the_template_needs_some() -> None:
    messages = [{"role": "assistant", "content": None}]
    assert render_prompt(STRINGS, RenderInput(read_turns(messages))).plain == "[]"
    refuses = ChatTemplate("{{ raise_exception('first') if messages[0].content is undefined }}")
    assert render_prompt(refuses, RenderInput(read_turns(messages))).plain == ""
    both = ChatTemplate("{{ raise_exception(messages[0].content | default('absent')) }}")
    with pytest.raises(RequestError, match="absent"):
        render_prompt(both, RenderInput(read_turns(messages)))


def test_flags_may_come_with_the_kwargs() -> None:
    flags = ChatTemplate("{{ add_generation_prompt }} {{ documents }} {{ x }}")
    kwargs = {"add_generation_prompt": False, "documents": [1], "x": 2}
    assert render_prompt(flags, RenderInput([HI], kwargs=kwargs)).plain == "False [1] 2"
    assert render_prompt(flags, RenderInput([HI])).plain == "True None "
    with pytest.raises(RequestError, match="must be true or false"):
        render_prompt(flags, RenderInput([HI], kwargs={"add_generation_prompt": "no"}))


def test_continuing_needs_no_second_flag() -> None:
    assert render_prompt(PARTS, RenderInput([HI], continue_final_message=True)).plain == "[Hi"


@pytest.fixture(scope="module")
def tokenizer() -> HfTokenizer:
    return HfTokenizer(FOLDER / "tokenizer_byte_level.json")


def test_control_tokens_are_parsed_and_none_is_added(tokenizer: HfTokenizer) -> None:
    template = ChatTemplate(
        "{{ bos_token }}{{ messages[0].content }}<|eot_id|>",
        special_tokens={"bos_token": "<|begin_of_text|>"},
    )
    prompt = build_prompt(template, tokenizer, RenderInput([HI]))
    assert prompt.text == "<|begin_of_text|>Hi<|eot_id|>"
    assert prompt.token_ids[0] == tokenizer.token_id("<|begin_of_text|>")
    assert prompt.token_ids[-1] == tokenizer.token_id("<|eot_id|>")
    assert tokenizer.decode(prompt.token_ids) == "Hi"


def test_half_a_surrogate_pair_is_the_clients_error(tokenizer: HfTokenizer) -> None:
    with pytest.raises(RequestError, match="surrogate"):
        build_prompt(STRINGS, tokenizer, RenderInput([text_turn("user", "\ud83d")]))
