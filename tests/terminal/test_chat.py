"""The chat in a real terminal: a pseudo-terminal whose other end the test holds."""

import json
import os
import pty
import re
import select
import stat
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

HERE = Path(__file__).parent
CTRL_C, CTRL_D, UP, ENTER, ALT_ENTER = "\x03", "\x04", "\x1b[A", "\r", "\x1b\r"
PROMPT = "\n>"
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """What a person has: keys and a screen."""

    def __init__(self, state: Path) -> None:
        self.fd, tty = pty.openpty()
        termios.tcsetwinsize(tty, (40, 100))
        paths = [str(HERE), *filter(None, sys.path)]
        environment = {
            "PYTHONPATH": os.pathsep.join(paths),
            "XDG_STATE_HOME": str(state),
            "PROMPT_TOOLKIT_NO_CPR": "1",
            "TERM": "xterm",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(HERE / "chat_program.py")],
            stdin=tty,
            stdout=tty,
            stderr=tty,
            start_new_session=True,
            env=os.environ | environment,
        )
        os.close(tty)
        self.raw = ""

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def wait(self, text: str, seconds: float = 10) -> str:
        """Read until `text` has come, and return what came with it; the next wait begins after."""
        deadline = monotonic() + seconds
        while True:
            seen = _SEQUENCE.sub("", self.raw)
            before, found, after = seen.partition(text)
            if found:
                self.raw = after
                return before + found
            ready, _, _ = select.select([self.fd], [], [], deadline - monotonic())
            assert ready, f"{text!r} did not come; there was {seen!r}"
            self.raw += os.read(self.fd, 65536).decode("utf-8", "replace")

    def ask(self, line: str, answer: str) -> str:
        self.type(line + ENTER)
        return self.wait(answer) + self.wait(PROMPT)

    def leave(self) -> str:
        self.type(CTRL_D)
        shown = self.wait("stopped\n")
        assert self.process.wait(10) == 0
        return shown


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path)
    try:
        made.wait("/help lists the commands, Ctrl-D leaves.")
        made.wait(PROMPT)
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        os.close(made.fd)


def test_an_answer_and_its_closing_line(terminal: Terminal) -> None:
    shown = terminal.ask("hello there", "tokens/s")
    assert re.search(r"\nhello there \nTTFT [\d.]+ ms · 3 tokens · [\d,.]+ tokens/s$", shown[:-2])
    assert "left, 0 running, 0 stopped" in terminal.leave()


def test_ctrl_c_stops_the_answer_and_keeps_the_chat(terminal: Terminal) -> None:
    terminal.type("slow" + ENTER)
    terminal.wait("w3 ")
    terminal.type(CTRL_C)
    assert "w20" not in terminal.wait("· stopped")
    terminal.wait(PROMPT)
    assert "[4: Be brief.]" in terminal.ask("history", "tokens/s")
    assert "left, 0 running, 1 stopped" in terminal.leave()


def test_ctrl_c_at_the_prompt_clears_the_line(terminal: Terminal) -> None:
    terminal.type("never sent" + CTRL_C)
    terminal.wait("Ctrl-D or /exit leaves.")
    assert "[2: Be brief.]" in terminal.ask("history", "tokens/s")
    terminal.leave()


def test_a_paste_of_many_lines_is_one_message(terminal: Terminal) -> None:
    terminal.type("\x1b[200~raw one\r\n  two\rthree\n\x1b[201~")
    terminal.wait("three")
    assert r"'raw one\n  two\nthree'" in terminal.ask("", "tokens/s")
    terminal.leave()


def test_new_lines_within_a_message(terminal: Terminal) -> None:
    keys = f"raw one\\{ENTER}two{ALT_ENTER}three"
    assert r"'raw one\ntwo\nthree'" in terminal.ask(keys, "tokens/s")
    terminal.leave()


def test_keys_pressed_during_an_answer_wait_for_the_prompt(terminal: Terminal) -> None:
    terminal.type("soon" + ENTER)
    terminal.wait("thinking ")
    terminal.type("\x1b[200~raw 1\n2\x1b[201~" + ENTER)
    assert "raw" not in terminal.wait("tokens/s")
    assert r"'raw 1\n2'" in terminal.wait("tokens/s")
    terminal.leave()


def test_the_arrow_keys_bring_back_earlier_messages(terminal: Terminal, tmp_path: Path) -> None:
    terminal.ask("raw first", "tokens/s")
    terminal.ask("/system", "Be brief.")
    assert "'raw first'" in terminal.ask(UP + UP, "tokens/s")
    terminal.leave()
    history = tmp_path / "dynemo-run" / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    again = Terminal(tmp_path)
    again.wait(PROMPT)
    assert "'raw first'" in again.ask(UP, "tokens/s")
    again.leave()
    os.close(again.fd)


def test_when_the_context_fills_the_oldest_turns_go(terminal: Terminal) -> None:
    terminal.ask("raw " + "a " * 40, "tokens/s")
    shown = terminal.ask("b " * 30, "tokens/s")
    assert "The context of 100 tokens is full. The oldest turn is no longer sent" in shown
    assert "[4: Be brief.]" in terminal.ask("history", "tokens/s")
    shown = terminal.ask("c " * 120, "The prompt has 122 tokens")
    assert "[6: Be brief.]" in terminal.ask("history", "tokens/s")
    terminal.leave()


def test_retry_and_save(terminal: Terminal, tmp_path: Path) -> None:
    assert "no message yet" in terminal.ask("/retry", "anew.")
    terminal.ask("one", "tokens/s")
    terminal.ask("history", "[4: Be brief.]")
    terminal.ask("/retry", "[4: Be brief.]")
    terminal.ask(f"/save {tmp_path}/talk.json", "Saved 2 turns")
    roles = [each["role"] for each in json.loads((tmp_path / "talk.json").read_text())]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    terminal.type("/quit" + ENTER)
    terminal.wait("left, 0 running")


def test_an_engine_that_is_lost_is_one_line(terminal: Terminal) -> None:
    shown = terminal.ask("crash", "The engine ended.")
    assert "half way \nLOG the engine ended with signal SIGKILL\nThe engine ended." in shown
    assert "Traceback" not in shown
    # A line of the log that comes while somebody types stands above what is typed.
    terminal.type("hist")
    assert "LOG the engine is back\n" in terminal.wait("is back") + terminal.wait(PROMPT)
    assert "[4: Be brief.]" in terminal.ask("ory", "tokens/s")
    terminal.leave()


def test_a_model_that_is_loading_is_waited_for(terminal: Terminal) -> None:
    shown = terminal.ask("down and up", "tokens/s")
    assert shown.count("Waiting for the model: loading") == 1
    assert "down and up \nTTFT" in shown
    terminal.leave()


def test_a_model_cannot_steer_the_terminal(terminal: Terminal) -> None:
    terminal.type("escape" + ENTER)
    assert "␛]0;title␇" in terminal.wait("tokens/s")
    terminal.leave()


def test_the_terminal_is_left_as_it_was(terminal: Terminal) -> None:
    terminal.ask("hello", "tokens/s")
    terminal.leave()
    modes = termios.tcgetattr(terminal.fd)
    assert modes[3] & termios.ECHO
    assert modes[3] & termios.ICANON
    assert modes[0] & termios.ICRNL


def test_tab_completes_commands(terminal: Terminal) -> None:
    assert "temperature is 0.2." in terminal.ask("/se\t temp\t 0.2", "0.2.")
    terminal.leave()


def test_sigterm_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    terminal.type("slow" + ENTER)
    terminal.wait("w3 ")
    terminal.process.terminate()
    terminal.wait("left, 0 running, 1 stopped")
    assert termios.tcgetattr(terminal.fd)[3] & termios.ECHO
