"""The chat in a pseudo-terminal."""

import json
import re
import stat
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.program import program, program_environment
from support.pseudo_terminal import CTRL_D, ENTER, PROMPT, Terminal

CTRL_C, UP, ALT_ENTER = "\x03", "\x1b[A", "\x1b\r"


class Chat(Terminal):
    """`chat_program.py` in a pseudo-terminal."""

    def __init__(self, state: Path) -> None:
        command = [sys.executable, "-W", "error", program("chat_program")]
        super().__init__(command, state, {"PYTHONPATH": program_environment()["PYTHONPATH"]})

    def leave(self) -> str:
        self.type(CTRL_D)
        shown = self.wait("stopped\n")
        assert self.process.wait(10) == 0
        return shown


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Chat]:
    made = Chat(tmp_path)
    try:
        made.wait("/help lists the commands. Ctrl-D leaves.")
        made.wait(PROMPT)
        yield made
    finally:
        made.close()


def test_an_answer_and_its_closing_line(terminal: Chat) -> None:
    shown = terminal.ask("hello there", "tokens/s")
    assert re.search(r"\nhello there \nTTFT [\d.]+ ms · 3 tokens · [\d,.]+ tokens/s$", shown[:-2])
    assert "left, 0 running, 0 stopped" in terminal.leave()


def test_ctrl_c_stops_the_answer_and_keeps_the_chat(terminal: Chat) -> None:
    terminal.type("slow" + ENTER)
    terminal.wait("w3 ")
    terminal.type(CTRL_C)
    assert "w20" not in terminal.wait("· stopped")
    terminal.wait(PROMPT)
    assert "[4: Be brief.]" in terminal.ask("history", "tokens/s")
    assert "left, 0 running, 1 stopped" in terminal.leave()


def test_ctrl_c_at_the_prompt_clears_the_line(terminal: Chat) -> None:
    terminal.type("never sent" + CTRL_C)
    terminal.wait("Press Ctrl-D or type /exit to leave.")
    assert "[2: Be brief.]" in terminal.ask("history", "tokens/s")
    terminal.leave()


def test_a_paste_of_many_lines_is_one_message(terminal: Chat) -> None:
    terminal.type("\x1b[200~raw one\r\n  two\rthree\n\x1b[201~")
    terminal.wait("three")
    assert r"'raw one\n  two\nthree'" in terminal.ask("", "tokens/s")
    terminal.leave()


def test_new_lines_within_a_message(terminal: Chat) -> None:
    keys = f"raw one\\{ENTER}two{ALT_ENTER}three"
    assert r"'raw one\ntwo\nthree'" in terminal.ask(keys, "tokens/s")
    terminal.leave()


def test_keys_pressed_during_an_answer_wait_for_the_prompt(terminal: Chat) -> None:
    terminal.type("soon" + ENTER)
    terminal.wait("thinking ")
    terminal.type("\x1b[200~raw 1\n2\x1b[201~" + ENTER)
    assert "raw" not in terminal.wait("tokens/s")
    assert r"'raw 1\n2'" in terminal.wait("tokens/s")
    terminal.leave()


def test_the_arrow_keys_bring_back_earlier_messages(terminal: Chat, tmp_path: Path) -> None:
    terminal.ask("raw first", "tokens/s")
    terminal.ask("/system", "Be brief.")
    assert "'raw first'" in terminal.ask(UP + UP, "tokens/s")
    terminal.leave()
    history = tmp_path / "dynemo-run" / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    again = Chat(tmp_path)
    again.wait(PROMPT)
    assert "'raw first'" in again.ask(UP, "tokens/s")
    again.leave()
    again.close()


def test_when_the_context_fills_the_oldest_turns_go(terminal: Chat) -> None:
    terminal.ask("raw " + "a " * 40, "tokens/s")
    shown = terminal.ask("b " * 30, "tokens/s")
    assert "The context of 100 tokens is full. The oldest turn is no longer sent" in shown
    assert "[4: Be brief.]" in terminal.ask("history", "tokens/s")
    shown = terminal.ask("c " * 120, "The prompt has 122 tokens")
    assert "[6: Be brief.]" in terminal.ask("history", "tokens/s")
    terminal.leave()


def test_retry_and_save(terminal: Chat, tmp_path: Path) -> None:
    assert "no message to answer again" in terminal.ask("/retry", "again.")
    terminal.ask("one", "tokens/s")
    terminal.ask("history", "[4: Be brief.]")
    terminal.ask("/retry", "[4: Be brief.]")
    terminal.ask(f"/save {tmp_path}/talk.json", "Saved 2 turns")
    roles = [each["role"] for each in json.loads((tmp_path / "talk.json").read_text())]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    terminal.type("/quit" + ENTER)
    terminal.wait("left, 0 running")


def test_an_engine_that_is_lost_is_one_line(terminal: Chat) -> None:
    shown = terminal.ask("crash", "The engine ended.")
    assert "half way \nLOG The engine ended with signal SIGKILL.\nThe engine ended." in shown
    assert "Traceback" not in shown
    # A log line that arrives while the user types appears above the typed text.
    terminal.type("hist")
    assert "LOG The engine is back.\n" in terminal.wait("is back") + terminal.wait(PROMPT)
    assert "[4: Be brief.]" in terminal.ask("ory", "tokens/s")
    terminal.leave()


def test_a_model_that_is_loading_is_waited_for(terminal: Chat) -> None:
    shown = terminal.ask("down and up", "tokens/s")
    assert shown.count("Waiting for the model: loading") == 1
    assert "down and up \nTTFT" in shown
    terminal.leave()


def test_a_model_cannot_steer_the_terminal(terminal: Chat) -> None:
    terminal.type("escape" + ENTER)
    assert "␛]0;title␇" in terminal.wait("tokens/s")
    terminal.leave()


def test_the_terminal_is_left_as_it_was(terminal: Chat) -> None:
    terminal.ask("hello", "tokens/s")
    terminal.leave()
    modes = termios.tcgetattr(terminal.fd)
    assert modes[3] & termios.ECHO
    assert modes[3] & termios.ICANON
    assert modes[0] & termios.ICRNL


def test_tab_completes_commands(terminal: Chat) -> None:
    assert "temperature is 0.2." in terminal.ask("/se\t temp\t 0.2", "0.2.")
    terminal.leave()


def test_sigterm_leaves_the_terminal_as_it_was(terminal: Chat) -> None:
    terminal.type("slow" + ENTER)
    terminal.wait("w3 ")
    terminal.process.terminate()
    terminal.wait("left, 0 running, 1 stopped")
    assert termios.tcgetattr(terminal.fd)[3] & termios.ECHO


RESULT = "Result of get_weather:"


@pytest.fixture
def tools(terminal: Chat, tmp_path: Path) -> Chat:
    """A chat with a tool."""
    function = {"name": "get_weather", "description": "The weather\nof a city."}
    (tmp_path / "tools.json").write_text(json.dumps([{"type": "function", "function": function}]))
    terminal.ask(f"/tools {tmp_path}/tools.json", "  get_weather  The weather of a city.")
    return terminal


def messages(terminal: Chat, folder: Path) -> list[dict[str, Any]]:
    """Returns the messages that /save writes."""
    terminal.ask(f"/save {folder}/talk.json", "Saved")
    saved: list[dict[str, Any]] = json.loads((folder / "talk.json").read_text())
    return saved


def test_a_call_asks_for_its_result_and_the_answer_goes_on(tools: Chat, tmp_path: Path) -> None:
    tools.type("weather Paris" + ENTER)
    shown = tools.wait(RESULT)
    assert 'I know [\'get_weather\'].\n\n→ get_weather {"city": "Paris"}\nTTFT' in shown
    assert "Results: [('id0', '21 °C')]" in tools.ask("21 °C", "tokens/s")
    _, question, call, result, answer = messages(tools, tmp_path)
    assert question == {"role": "user", "content": "weather Paris"}
    assert call["reasoning_content"] == "I know ['get_weather']."
    (made,) = call["tool_calls"]
    assert made["id"] == "id0"
    assert made["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    assert result == {
        "role": "tool",
        "content": "21 °C",
        "name": "get_weather",
        "tool_call_id": "id0",
    }
    assert answer["content"].startswith("Results")
    tools.leave()


def test_several_calls_and_several_rounds(tools: Chat, tmp_path: Path) -> None:
    tools.type("weather Paris Lima" + ENTER)
    assert tools.wait(RESULT).count("get_weather {") == 3
    tools.type(ENTER)
    tools.wait('→ get_weather {"city": "Lima"}')
    tools.wait(RESULT)
    tools.type("again" + ENTER)
    tools.wait('→ get_weather {"city": "Rome"}')
    tools.wait(RESULT)
    shown = tools.ask("rain", "tokens/s")
    assert "Results: [('id0', ''), ('id1', 'again'), ('id0', 'rain')]" in shown
    roles = [each["role"] for each in messages(tools, tmp_path)]
    assert roles[1:] == ["user", "assistant", "tool", "tool", "assistant", "tool", "assistant"]
    tools.leave()


@pytest.mark.parametrize("key", [CTRL_C, CTRL_D])
def test_a_result_that_the_user_does_not_give(tools: Chat, tmp_path: Path, key: str) -> None:
    tools.type("weather Paris" + ENTER)
    tools.wait(RESULT)
    tools.type(key)
    tools.wait("The calls are dropped. /retry answers the last message again.")
    tools.wait(PROMPT)
    assert [each["role"] for each in messages(tools, tmp_path)] == ["system", "user"]
    tools.type("/retry" + ENTER)
    tools.wait(RESULT)
    assert "Results: [('id0', 'sun')]" in tools.ask("sun", "tokens/s")
    # The retry of a whole round answers its results again.
    assert "Results: [('id0', 'sun')]" in tools.ask("/retry", "tokens/s")
    assert "[6: Be brief.]" in tools.ask("history", "tokens/s")
    tools.leave()


def test_results_outlive_an_engine(tools: Chat) -> None:
    tools.type("weather Paris" + ENTER)
    tools.wait(RESULT)
    tools.ask("fail", "The engine ended.")
    assert "Results: [('id0', 'fail')]" in tools.ask("/retry", "tokens/s")
    tools.leave()


def test_a_result_that_does_not_fit(tools: Chat, tmp_path: Path) -> None:
    tools.type("weather Paris" + ENTER)
    tools.wait(RESULT)
    tools.ask("b " * 120, "The prompt has 124 tokens")
    tools.type("/retry" + ENTER)
    tools.wait(RESULT)
    assert "Results: [('id0', 'rain')]" in tools.ask("rain", "tokens/s")
    roles = [each["role"] for each in messages(tools, tmp_path)]
    assert roles == ["system", "user", "assistant", "tool", "assistant"]
    tools.leave()


def test_a_call_that_breaks_off_is_not_kept(tools: Chat, tmp_path: Path) -> None:
    assert RESULT not in tools.ask("cut", "The engine ended.")
    assert [each["role"] for each in messages(tools, tmp_path)] == ["system", "user"]
    tools.leave()


def test_reasoning_is_faint_and_stays_in_the_history(tools: Chat) -> None:
    tools.type("think" + ENTER)
    tools.wait("tokens/s")
    tools.wait(PROMPT)
    assert "['Hmm.']" in tools.ask("thoughts", "tokens/s")
    tools.ask("/set reasoning off", "reasoning is off.")
    tools.ask("/tools off", "The tools are removed.")
    tools.ask("/tools", "There are no tools.")
    tools.leave()
