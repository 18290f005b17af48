"""Reads the user's input with prompt_toolkit: editing, history, completion and pasting."""

import os
import signal
import sys
import termios
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.shortcuts import CompleteStyle

from dynemo.terminal.chat.commands import COMMANDS
from dynemo.terminal.chat.settings import NAMES

#: The most bytes of history to keep. A longer file is cut to its newer half.
MAX_HISTORY = 1024 * 1024


def prompt_session(history: History) -> PromptSession[str]:
    """Returns a prompt: Enter sends, Alt-Enter or a trailing backslash inserts a line break."""
    return PromptSession(
        "> ",
        multiline=True,
        prompt_continuation=lambda _width, _line, _is_soft: "  ",
        history=history,
        completer=_Commands(),
        complete_style=CompleteStyle.READLINE_LIKE,
        complete_while_typing=False,
        key_bindings=_bindings(),
        enable_history_search=False,
        # There is no menu below the line, so no rows are reserved for one.
        reserve_space_for_menu=0,
    )


def result_session(message: str) -> PromptSession[str]:
    """Returns a prompt for the result of a tool. Its keys are those of the chat."""
    return PromptSession(
        message,
        multiline=True,
        prompt_continuation=lambda _width, _line, _is_soft: "  ",
        key_bindings=_bindings(),
        reserve_space_for_menu=0,
    )


def _bindings() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.char_before_cursor == "\\" and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


class _Commands(Completer):
    """Completes commands, names of settings, and the file names of /save and /tools."""

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        command, _, file = text.partition(" ")
        if file and command in ("/save", "/tools"):
            yield from PathCompleter(expanduser=True).get_completions(Document(file), event)
        elif text.startswith("/set "):
            yield from _starting(text.removeprefix("/set "), NAMES)
        elif text.startswith("/"):
            yield from _starting(text[1:], [*COMMANDS, "quit"])


def _starting(word: str, words: Iterable[str]) -> Iterable[Completion]:
    return [Completion(each, -len(word)) for each in words if each.startswith(word)]


class _PrivateHistory(FileHistory):
    """A history file. A full disk must not end the chat."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)


def open_history() -> History:
    """Opens the user's history file and creates it if needed.

    If it cannot be written, uses memory.
    """
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    path = Path(state).expanduser() / "dynemo-run" / "history"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as file:
            os.fchmod(file.fileno(), 0o600)
            if os.fstat(file.fileno()).st_size > MAX_HISTORY:
                file.seek(-MAX_HISTORY // 2, os.SEEK_END)
                # An entry begins with a blank line and a comment with its time.
                newer = file.read().partition(b"\n\n# ")[2]
                file.seek(0)
                file.truncate()
                file.write(b"\n# " + newer)
    except (OSError, RuntimeError):
        return InMemoryHistory()
    return _PrivateHistory(str(path))


@contextmanager
def held_terminal() -> Iterator[None]:
    """Configures the terminal for a whole chat.

    Typed keys are not echoed into an answer, but kept for the next prompt. Ctrl-C has no effect
    unless it is handled. The mode stays the same from the first to the last prompt: switching back
    and forth would lose a Ctrl-D that arrives in between.
    """
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    quiet = termios.tcgetattr(fd)
    quiet[0] &= ~(termios.ICRNL | termios.INLCR)
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(fd, termios.TCSANOW, quiet)
    # SIG_IGN would be inherited by child processes.
    interrupt = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupt)
        os.write(sys.stdout.fileno(), b"\x1b[?2004l")
        termios.tcsetattr(fd, termios.TCSANOW, before)


def mark_pastes() -> None:
    """Enables bracketed paste while no prompt is shown.

    Then the next prompt takes a paste as one message. The prompt itself disables this mode.
    """
    os.write(sys.stdout.fileno(), b"\x1b[?2004h")
