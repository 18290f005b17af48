"""A pseudo-terminal whose other end the test holds."""

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
    """What a person has: keys and a screen."""

    def __init__(
        self, command: Sequence[str], state: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Starts `command` at it; a chat keeps its history under `state`."""
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

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)
