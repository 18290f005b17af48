from pathlib import Path

import pytest

from dynemo.errors import DynemoError
from dynemo.messages.ask import Ask, text_turn
from dynemo.terminal.chat.commands import COMMANDS, ChatSession, parse, run_command
from dynemo.terminal.chat.conversation import ChatRound, Conversation
from dynemo.terminal.chat.settings import NAMES
from support.scripted_pipeline import ScriptedPipeline


@pytest.fixture
def chat() -> ChatSession:
    settings = Ask(temperature=0.5)
    talk = Conversation("Be brief.", [ChatRound("q", "a")])
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


@pytest.mark.parametrize(
    ("rest", "words"),
    [
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
