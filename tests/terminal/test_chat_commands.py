import json
from pathlib import Path

import pytest

from dynemo.answer.formats.format import Format
from dynemo.answer.formats.known.table import REASONINGS, TOOLS
from dynemo.errors import DynemoError
from dynemo.messages.ask import Ask, text_turn
from dynemo.terminal.chat.commands import COMMANDS, ChatSession, parse, run_command
from dynemo.terminal.chat.conversation import ChatRound, Conversation
from dynemo.terminal.chat.settings import NAMES
from support.scripted_pipeline import ScriptedPipeline


@pytest.fixture
def chat() -> ChatSession:
    settings = Ask(temperature=0.5)
    talk = Conversation(
        "Be brief.", [ChatRound((text_turn("user", "q"), text_turn("assistant", "a")))]
    )
    return ChatSession(ScriptedPipeline(), "stub", settings, settings, talk)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/help", ("help", "")),
        ("/Quit ", ("exit", "")),
        ("/system  two\nlines ", ("system", "two\nlines")),
        ("/etc/hosts has what?", None),
        (" /help", None),
        ("/", None),
        ("1/2 of it", None),
    ],
)
def test_commands_start_with_a_slash(line: str, command: tuple[str, str] | None) -> None:
    assert parse(line) == command


def test_an_unknown_command_says_how_to_send_it() -> None:
    with pytest.raises(DynemoError, match='Unknown command "/hello"; did you mean "/help"'):
        parse("/hello world")


def test_help_lists_every_command(chat: ChatSession) -> None:
    shown = run_command(chat, "help", "")
    for name in COMMANDS:
        assert f"/{name}" in shown
    assert "Ctrl-D" in shown


def test_system(chat: ChatSession) -> None:
    assert run_command(chat, "system", "") == "Be brief."
    run_command(chat, "system", "Be kind.")
    assert chat.conversation.system == "Be kind."
    run_command(chat, "system", '""')
    assert chat.conversation.system is None
    assert "no system message" in run_command(chat, "system", "")


def test_clear_keeps_the_system_message(chat: ChatSession) -> None:
    assert run_command(chat, "clear", "") == "Forgot 1 turn; the system message stays."
    assert chat.conversation.turns_from(0) == [text_turn("system", "Be brief.")]


@pytest.mark.parametrize(
    ("rest", "field", "value"),
    [
        ("temperature 0.2", "temperature", 0.2),
        ("temperature  1", "temperature", 1.0),
        ("stop END", "stop", ["END"]),
        ('stop ["a", "b"]', "stop", ["a", "b"]),
        ("ignore_eos true", "ignore_eos", True),
        ('logit_bias {"5": -100}', "logit_bias", {5: -100.0}),
        ('chat_template_kwargs {"think": false}', "chat_template_kwargs", {"think": False}),
    ],
)
def test_set(chat: ChatSession, rest: str, field: str, value: object) -> None:
    run_command(chat, "set", rest)
    assert getattr(chat.settings, field) == value


def test_set_without_a_value_goes_back_to_the_start(chat: ChatSession) -> None:
    run_command(chat, "set", "temperature 0.2")
    assert run_command(chat, "set", "temperature") == "temperature is 0.5."
    assert run_command(chat, "set", "top_p") == "top_p is the model's default."


def test_set_alone_lists_all(chat: ChatSession) -> None:
    shown = run_command(chat, "set", "").splitlines()
    assert ["temperature", "0.5"] in [line.split() for line in shown]
    assert len(shown) == len(NAMES)


REASONING = Format(REASONINGS["think"].format, TOOLS["hermes"].format)


@pytest.fixture
def thinking_chat() -> ChatSession:
    """A chat whose model reasons and calls tools."""
    settings = Ask(reasoning=True)
    return ChatSession(ScriptedPipeline(format=REASONING), "stub", settings, settings)


@pytest.mark.parametrize(
    ("lines", "reasoning", "effort", "shown"),
    [
        (["reasoning off"], False, None, "reasoning is off."),
        (["reasoning false"], False, None, "reasoning is off."),
        (["reasoning off", "reasoning ON"], True, None, "reasoning is on."),
        (["reasoning off", "reasoning"], True, None, "reasoning is on."),
        (["reasoning_effort none"], False, None, 'reasoning_effort is "none".'),
        (["reasoning_effort low"], True, "low", 'reasoning_effort is "low".'),
        (
            ["reasoning off", "reasoning_effort low"],
            True,
            "low",
            'reasoning_effort is "low".',
        ),
        (
            ["reasoning_effort none", "reasoning_effort"],
            True,
            None,
            "reasoning_effort is the model's default.",
        ),
    ],
)
def test_set_reasoning(
    thinking_chat: ChatSession, lines: list[str], reasoning: bool, effort: str | None, shown: str
) -> None:
    for line in lines:
        said = run_command(thinking_chat, "set", line)
    settings = thinking_chat.settings
    assert (settings.reasoning, settings.reasoning_effort, said) == (reasoning, effort, shown)


#: A value of each setting, as the user types it.
VALUES = {
    "reasoning": "on",
    "reasoning_effort": "high",
    "max_thinking_tokens": "5",
    "logit_bias": '{"5": 1}',
    "stop": "END",
    "ignore_eos": "true",
    "chat_template_kwargs": "{}",
    "stop_token_ids": "[1]",
    "include_stop_str_in_output": "true",
}


@pytest.mark.parametrize("name", NAMES)
def test_each_setting_can_be_set_and_reset(thinking_chat: ChatSession, name: str) -> None:
    run_command(thinking_chat, "set", f"{name} {VALUES.get(name, 1)}")
    assert thinking_chat.settings != thinking_chat.at_start or name == "reasoning"
    run_command(thinking_chat, "set", name)
    assert thinking_chat.settings == thinking_chat.at_start


def test_a_model_without_reasoning_refuses_an_effort(chat: ChatSession) -> None:
    with pytest.raises(DynemoError, match="has no reasoning, so 'reasoning_effort'"):
        run_command(chat, "set", "reasoning_effort high")


TOOL = {"type": "function", "function": {"name": "f", "description": "Does\n it."}}
OTHER = {"type": "function", "function": {"name": "long_name"}}


@pytest.mark.parametrize("value", [[TOOL, OTHER], {"tools": [TOOL, OTHER]}])
def test_tools(thinking_chat: ChatSession, tmp_path: Path, value: object) -> None:
    file = tmp_path / "my tools.json"
    file.write_text(json.dumps(value))
    assert "no tools" in run_command(thinking_chat, "tools", "")
    listed = "  f          Does it.\n  long_name"
    assert run_command(thinking_chat, "tools", str(file)) == listed
    assert run_command(thinking_chat, "tools", "") == listed
    assert [tool.name for tool in thinking_chat.settings.tools or ()] == ["f", "long_name"]
    assert run_command(thinking_chat, "tools", '""') == "The tools are removed."
    assert "no tools" in run_command(thinking_chat, "tools", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("3", "must hold a JSON list of tools"),
        ('{"tool": []}', "must hold a JSON list of tools"),
        ("[]", "holds no tools"),
        ("[3]", r"Invalid 'tools\[0\]': it must be an object"),
        (json.dumps([TOOL, TOOL]), r"'tools\[1\].function.name': there is another tool"),
        (json.dumps([TOOL, {"type": "function"}]), r"'tools\[1\].function'"),
        (json.dumps([TOOL, {"type": "x"}]), r"'tools\[1\].type' is \"x\""),
        (json.dumps([TOOL | {"function": {"name": "a b"}}]), r"'tools\[0\].function.name'"),
        (json.dumps([TOOL] * 5000), "holds more than 4,096 tools"),
        ("", "is not valid JSON"),
    ],
)
def test_wrong_tools(thinking_chat: ChatSession, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(DynemoError, match=words) as caught:
        run_command(thinking_chat, "tools", str(tmp_path / "t"))
    assert "\n" not in str(caught.value)
    assert thinking_chat.settings.tools is None


@pytest.mark.parametrize("name", ["/none", "/dev/zero", ".", "a\0b"])
def test_tools_from_no_file(thinking_chat: ChatSession, name: str) -> None:
    with pytest.raises(DynemoError, match=r"cannot be read|is not a file"):
        run_command(thinking_chat, "tools", name)


def test_a_model_without_tools_says_so(chat: ChatSession, tmp_path: Path) -> None:
    (tmp_path / "t").write_text(json.dumps([TOOL]))
    with pytest.raises(DynemoError, match='The model "stub" cannot call tools'):
        run_command(chat, "tools", str(tmp_path / "t"))
    assert chat.settings.tools is None


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("reasoning maybe", "must be on or off"),
        ("temperature hot", "'temperature'"),
        ("temperature 3", "'temperature'"),
        ("max_tokens 0", "'max_tokens'"),
        ("messages []", 'Unknown setting "messages"'),
        ("temp", 'Unknown setting "temp"; /set lists the settings.'),
    ],
)
def test_set_refuses_invalid_values(chat: ChatSession, rest: str, words: str) -> None:
    with pytest.raises(DynemoError, match=words):
        run_command(chat, "set", rest)
    assert chat.settings == chat.at_start


def test_save(chat: ChatSession, tmp_path: Path) -> None:
    assert run_command(chat, "save", str(tmp_path / "x")) == f"Saved 1 turn to {tmp_path / 'x'}."
    with pytest.raises(DynemoError, match="/save needs a file name"):
        run_command(chat, "save", "")
