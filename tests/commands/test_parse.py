"""`dynemo-run parse` reads the answers of a model, through the command."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dynemo.app.settings.options import OPTIONS
from dynemo.commands.completion import grammar
from support.command import run

TEMPLATE = """\
{%- for tool in tools or [] %}[{{ tool | tojson }}]{% endfor %}
{%- for m in messages %}<{{ m.role }}>
{%- if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}
{{ m.content or '' }}
{%- for call in m.tool_calls or [] %}<tool_call>
{{ call.function | tojson }}
</tool_call>{% endfor %}
{%- endfor %}{% if add_generation_prompt %}<assistant><think>
{% endif %}"""
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
FUNCTION = {"name": "get_weather", "arguments": '{"city": "Paris"}'}


@pytest.fixture(scope="module")
def model(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that thinks first and calls tools: its tokenizer and its chat template."""
    folder = tmp_path_factory.mktemp("model")
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (folder / name).write_bytes((demo_folder / name).read_bytes())
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def _run(
    model: Path, *lines: object, flags: tuple[str, ...] = ()
) -> "subprocess.CompletedProcess[str]":
    data = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    return run("parse", model, "-", *flags, stdin=data)


def _parse(model: Path, *lines: object, flags: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    done = _run(model, *lines, flags=flags)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _called(answer: dict[str, Any]) -> list[dict[str, str]]:
    return [call["function"] for call in answer["message"].get("tool_calls", [])]


def test_thoughts_content_and_calls(model: Path) -> None:
    text = f"I look it up.\n</think>\n\nOne moment.\n{CALL}"
    (answer,) = _parse(model, {"text": text, "tools": [TOOL]})
    message = answer["message"]
    assert message["reasoning_content"] == message["reasoning"] == "I look it up."
    assert message["content"].strip() == "One moment."
    assert _called(answer) == [FUNCTION]
    assert answer["finish_reason"] == "tool_calls"
    kinds = [piece["type"] for piece in answer["pieces"]]
    assert kinds[0] == "reasoning"
    assert kinds[-3:] == ["tool_call", "arguments", "finish"]


def test_a_list_is_a_stream(model: Path) -> None:
    text = f"Hm.</think>{CALL}"
    whole, characters = _parse(
        model, {"text": text, "tools": [TOOL]}, {"text": list(text), "tools": [TOOL]}
    )
    assert characters["message"] == whole["message"]
    assert characters["finish_reason"] == whole["finish_reason"]
    assert len(characters["pieces"]) > len(whole["pieces"])
    finish = next(piece for piece in characters["pieces"] if piece["type"] == "finish")
    assert finish["finish"][2] == len(text)  # each piece counts as one token


def test_without_tools_a_call_is_content(model: Path) -> None:
    (answer,) = _parse(model, {"text": f"</think>{CALL}"})
    assert answer["message"]["content"] == CALL
    assert answer["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "text",
    [CALL.replace("get_weather", "nobody"), CALL[:-30], CALL.replace("{", "[")],
    ids=["unknown", "cut", "malformed"],
)
def test_what_is_no_call_is_content(model: Path, text: str) -> None:
    (answer,) = _parse(model, {"text": f"</think>{text}", "tools": [TOOL]})
    assert answer["message"]["content"] == text
    assert _called(answer) == []


def test_the_prompt_tells_whether_thoughts_are_open(model: Path) -> None:
    plain, open_, given = _parse(
        model,
        {"text": "Yes.", "prompt": "<assistant>"},
        {"text": "Yes.", "prompt": "<assistant><think>\n"},
        {"text": "Yes."},  # the template opens them
    )
    assert plain["message"]["content"] == "Yes."
    assert open_["message"]["reasoning"] == given["message"]["reasoning"] == "Yes."


def test_a_format_by_name(model: Path) -> None:
    line = {"text": '[TOOL_CALLS][{"name": "get_weather", "arguments": {}}]', "tools": [TOOL]}
    flags = ("--tool-format", "mistral", "--reasoning-format", "none")
    (answer,) = _parse(model, line, flags=flags)
    assert _called(answer) == [{"name": "get_weather", "arguments": "{}"}]
    (answer,) = _parse(model, {"text": "<think>a</think>"}, flags=("--reasoning-format", "none"))
    assert answer["message"]["content"] == "<think>a</think>"


def test_wrong_lines(model: Path) -> None:
    answers = _parse(
        model,
        "nonsense",
        "",
        [1],
        {},
        {"text": 5},
        {"text": ["a", 5]},
        {"text": "a", "tools": {}},
        {"text": "a", "tools": [{"type": "function"}]},
        {"text": "a", "tools": [TOOL, TOOL]},
        {"text": "</think>Right.", "note": "other fields are ignored"},
    )
    *errors, last = answers
    words = [
        "Line 1 is not valid JSON",
        "Line 3 is not a JSON object",
        "text",
        "text",
        "text[1]",
        "tools",
        "'tools[0].function'",
        "'tools[1].function.name'",
    ]
    for error, word in zip(errors, words, strict=True):
        assert list(error) == ["error"]
        assert word in error["error"]
    assert last["message"]["content"] == "Right."


def test_a_model_without_tools(model: Path) -> None:
    (answer,) = _parse(model, {"text": "a", "tools": [TOOL]}, flags=("--tool-format", "none"))
    assert answer["error"].startswith("The model cannot call tools: ")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--tool-format", "hermse"), 'Unknown tool format "hermse"; did you mean "hermes"?'),
        (
            ("--reasoning-format", "thinc"),
            'Unknown reasoning format "thinc"; did you mean "think"?',
        ),
        (("--tools", "x"), "--tools"),
    ],
)
def test_wrong_flags(model: Path, flags: tuple[str, ...], words: str) -> None:
    done = _run(model, {"text": "a"}, flags=flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_files(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(json.dumps({"text": "</think>Hello"}))
    done = run("parse", model, file)
    assert json.loads(done.stdout)["message"]["content"] == "Hello"
    done = run("parse", model, tmp_path / "none.jsonl")
    assert (done.returncode, "Cannot read" in done.stderr) == (2, True)
    done = run("parse", tmp_path / "none", file)
    assert (done.returncode, done.stdout) == (2, "")


def test_the_demo_model() -> None:
    (answer,) = _parse(
        Path("demo"),
        {"text": CALL, "tools": [TOOL], "prompt": ""},
        flags=("--tool-format", "hermes"),
    )
    assert _called(answer) == [FUNCTION]


def test_help_and_completion_list_it() -> None:
    shown = run("parse", "--help").stdout
    slot = grammar()["parse"]
    assert set(slot.flags) >= {"--tool-format", "--reasoning-format", "--model-config"}
    for flag in slot.flags:
        assert flag in shown
    assert slot.takes_files
    assert "parse" in run("--help").stdout
    script = run("completion", "bash").stdout
    assert "'parse '*)" in script
    assert {"--tool-format", "--reasoning-format"} <= {option.name for option in OPTIONS}
