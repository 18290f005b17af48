"""A pseudo-terminal. The test holds its other end."""

import os
import pty
import re
import select
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic

CTRL_D, ENTER = "\x04", "\r"
PROMPT = "\n>"
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """A user's keyboard and screen."""

    def __init__(
        self, command: Sequence[str], state: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Starts `command` in the terminal. A chat keeps its history under `state`."""
        self.fd, tty = pty.openpty()
        termios.tcsetwinsize(tty, (40, 100))
        said = {"XDG_STATE_HOME": str(state), "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"}
        self.process = subprocess.Popen(
            command,
            stdin=tty,
            stdout=tty,
            stderr=tty,
            start_new_session=True,
            env=os.environ | said | dict(environment or {}),
        )
        os.close(tty)
        self.raw = ""

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def wait(self, text: str, seconds: float = 10) -> str:
        """Reads until `text` appears, and returns everything read.

        The next wait starts after it.
        """
        deadline = monotonic() + seconds
        while True:
            seen = _SEQUENCE.sub("", self.raw)
            before, found, after = seen.partition(text)
            if found:
                self.raw = after
                return before + found
            ready, _, _ = select.select([self.fd], [], [], deadline - monotonic())
            assert ready, f"{text!r} did not appear; the output was {seen!r}"
            self.raw += os.read(self.fd, 65536).decode("utf-8", "replace")

    def ask(self, line: str, answer: str) -> str:
        self.type(line + ENTER)
        return self.wait(answer) + self.wait(PROMPT)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)
