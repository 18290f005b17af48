"""Chat templates: the same renderings as in transformers, and errors of broken templates."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest

from dynemo.errors import ModelError, RequestError
from dynemo.prompt.template import ChatTemplate
from support.fidelity_data import conversations, goldens, manifest, template

Json = dict[str, Any]
USER = {"role": "user", "content": "Hi"}


def outcome(name: str, golden: Json) -> str | RequestError:
    """Returns the rendering of a golden's unchanged conversation, or the error."""
    conversation = conversations()[golden["conversation"]]
    kwargs = dict(golden["kwargs"])
    flags = {
        flag: kwargs.pop(flag)
        for flag in ("add_generation_prompt", "continue_final_message", "documents")
        if flag in kwargs
    }
    try:
        return template(name).render(
            conversation["messages"], tools=conversation["tools"], kwargs=kwargs, **flags
        )
    except RequestError as error:
        return error


def mismatch(golden: Json, got: str | RequestError) -> str | None:
    if "rendered" in golden:
        return None if got == golden["rendered"] else f"got {got!r}"
    if isinstance(got, str):
        return f"rendered, but {golden['error']['class']} was expected"
    if got.status != 400 or got.param not in ("messages", "continue_final_message"):
        return f"is not an error about the request: {got!r}"
    if golden["use"] == "raises" and str(got) != golden["error"]["message"]:
        return f"says {got}"
    return None


@pytest.mark.parametrize("name", sorted(manifest()))
def test_goldens(name: str) -> None:
    failures = [
        f"{golden['conversation']} ({golden['use']}): {wrong}"
        for golden in goldens()[name]
        if (wrong := mismatch(golden, outcome(name, golden)))
    ]
    assert not failures, "\n".join(failures)


def test_no_golden_is_left_out() -> None:
    assert set(goldens()) == set(manifest())
    assert sum(map(len, goldens().values())) == 2652


def render(source: str, *messages: Mapping[str, Any], **options: Any) -> str:
    return ChatTemplate(source).render(messages or [USER], **options)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ {'b': 1, 'a': '<é>'} | tojson }}", '{"b": 1, "a": "<é>"}'),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", '{"a":2,"b":1}'),
        ("{% generation %}{% set x = 1 %}in{% endgeneration %}{{ x is defined }}", "inFalse"),
        (
            "{% for m in [1, 2, 3] %}{% if m == 2 %}{% continue %}{% endif %}{{ m }}{% endfor %}",
            "13",
        ),
        ("{% set ns = namespace(self=1) %}{{ ns.self }}", "1"),
        ("{{ dict(a=1) }}{{ dict.fromkeys('x') }}", "{'a': 1}{'x': None}"),
        (
            "{{ tools is none }} {{ documents is none }} {{ bos_token is defined }}",
            "True True False",
        ),
        ("{{ continue_final_message is defined }}", "False"),
        ("a\r\n  {% if true %}\r\nb\r\n{% endif %}\r\n", "a\nb\n"),
    ],
)
def test_environment(source: str, text: str) -> None:
    assert render(source) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({}) }}",
        "{{ namespace(_x=1) }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ dict.__init__.__globals__ }}",
        "{{ strftime_now.__globals__.keys() }}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% include 'x' %}",
        "{{ missing.field }}",
        "{{ 1 / 0 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_a_forbidden_action_of_a_template_is_a_client_error(source: str) -> None:
    with pytest.raises(RequestError, match="cannot render these messages") as caught:
        render(source)
    assert caught.value.param == "messages"


def test_a_crash_names_the_template_line() -> None:
    with pytest.raises(RequestError, match=r"line 3 of the template"):
        render("a\nb\n{{ messages[0].nothing.here }}")


def test_a_refusal_is_the_templates_own_words() -> None:
    with pytest.raises(RequestError) as caught:
        render("{{ raise_exception('Only user roles!') }}")
    assert str(caught.value) == "Only user roles!"


@pytest.mark.parametrize("source", ["{% if %}", "{{ x", "{% endfor %}", "{% unknown %}"])
def test_a_template_that_is_no_jinja_fails_at_start(source: str) -> None:
    with pytest.raises(ModelError, match="not valid Jinja"):
        ChatTemplate(source)


def test_tool_use_is_chosen_with_tools() -> None:
    both = ChatTemplate({"default": "plain", "tool_use": "with tools", "rag": "docs"})
    assert both.render([USER]) == "plain"
    assert both.render([USER], tools=[{"type": "function"}]) == "with tools"
    assert ChatTemplate("one").render([USER], tools=[{}]) == "one"


def test_named_templates_need_a_default() -> None:
    with pytest.raises(ModelError, match="it has: rag, tool_use"):
        ChatTemplate({"tool_use": "x", "rag": "y"})


def test_kwargs_win_over_special_tokens() -> None:
    prompt = ChatTemplate("{{ bos_token }}{{ extra }}", special_tokens={"bos_token": "<s>"})
    assert prompt.render([USER], kwargs={"extra": 1}) == "<s>1"
    assert prompt.render([USER], kwargs={"bos_token": "", "extra": 2}) == "2"


@pytest.mark.parametrize("name", ["messages", "tools", "documents", "add_generation_prompt"])
def test_kwargs_cannot_replace_the_conversation(name: str) -> None:
    with pytest.raises(RequestError, match=name) as caught:
        render("x", kwargs={name: []})
    assert caught.value.param == "chat_template_kwargs"


def test_the_clock_is_the_templates_date() -> None:
    dated = ChatTemplate("{{ strftime_now('%d %b %Y') }}", now=lambda: datetime(2026, 2, 3))
    assert dated.render([USER]) == "03 Feb 2026"


def test_the_messages_are_left_as_they_are() -> None:
    messages = [{"role": "assistant", "content": "a", "reasoning": "r", "name": None}]
    text = ChatTemplate("{{ messages | tojson }}").render(
        messages, add_generation_prompt=False, continue_final_message=False
    )
    assert text == (
        '[{"thinking": "r", "role": "assistant", "content": "a", "reasoning": "r", '
        '"reasoning_content": "r"}]'
    )
    assert messages == [{"role": "assistant", "content": "a", "reasoning": "r", "name": None}]


def test_no_messages() -> None:
    with pytest.raises(RequestError, match="at least one message"):
        ChatTemplate("x").render([])


PRINT = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
TRIM = "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}"
PARTS = "{% for m in messages %}[{% for p in m.content %}{{ p.text }}{% endfor %}]{% endfor %}"


@pytest.mark.parametrize(
    ("source", "content", "text"),
    [
        (PRINT, "so far", "[Hi][so far"),
        (PRINT, "so far ", "[Hi][so far "),
        (TRIM, "so far ", "[Hi][so far"),
        (PRINT, "Hi", "[Hi][Hi"),
        (PRINT, "", "[Hi]["),
    ],
)
def test_continuing_the_final_message(source: str, content: str, text: str) -> None:
    last = {"role": "assistant", "content": content}
    options = {"add_generation_prompt": False, "continue_final_message": True}
    assert render(source, USER, last, **options) == text


def test_continuing_the_last_text_part() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b "}]
    options = {"add_generation_prompt": False, "continue_final_message": True}
    assert render(PARTS, {"role": "assistant", "content": parts}, **options) == "[ab "
    assert parts[1]["text"] == "b "


@pytest.mark.parametrize(
    ("source", "content", "words"),
    [
        ("{{ messages[0].role }}", "x", "does not read 'content'"),
        ("{{ messages[0].content[:3] }}", "xyz123", "drops or changes"),
        (PRINT, None, "no content to continue"),
        (PARTS, [{"type": "image_url"}], "no text to continue"),
    ],
)
def test_messages_that_cannot_be_continued(source: str, content: object, words: str) -> None:
    last = {"role": "assistant", "content": content}
    with pytest.raises(RequestError, match=words):
        render(source, last, add_generation_prompt=False, continue_final_message=True)


def test_a_generation_prompt_and_a_continued_message_exclude_each_other() -> None:
    with pytest.raises(RequestError, match="cannot both be true"):
        render(PRINT, USER, add_generation_prompt=True, continue_final_message=True)
