"""A shell in its own terminal, in which a test types."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: The command that starts each shell without the user's settings.
START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
#: Loads the script, and replaces the command by a function that records its arguments. The prompt
#: is written in two parts, so that the echo of this line does not look like the prompt.
_SET_UP = {
    "bash": "source {script}; dynemo-run() {{ echo \"<$*>\" >>{said}; }}; PS1='%re''ady '",
    "zsh": "autoload -Uz compinit; compinit -u -D; source {script}; "
    "dynemo-run() {{ print -r -- \"<$*>\" >>{said} }}; PS1='%%re''ady '",
    "fish": 'source {script}; function dynemo-run; echo "<$argv>" >>{said}; end; '
    "function fish_prompt; echo -n '%re''ady '; end; function fish_greeting; end",
}
_READY = b"%ready "
#: Gives the new session its terminal, which job control needs.
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


class Shell:
    """A running shell, made by `shell`."""

    def __init__(self, terminal: int, said: Path) -> None:
        self._terminal = terminal
        self._said = said
        self._seen = b""

    def type(self, keys: str) -> str:
        """Types the command, these keys (maybe with tabs) and Enter. Returns its arguments."""
        lines = self._lines()
        os.write(self._terminal, f"dynemo-run {keys}\r".encode())
        deadline = time.monotonic() + 15
        while len(now := self._lines()) == len(lines):
            assert time.monotonic() < deadline, self._seen.decode(errors="replace")
            self._read(0.05)
        return now[-1].strip("<>")

    def set_up(self, line: str) -> None:
        """Types `line`, and waits for the prompt that it sets."""
        os.write(self._terminal, line.encode() + b"\r")
        deadline = time.monotonic() + 15
        while _READY not in self._seen:
            assert time.monotonic() < deadline, self._seen.decode(errors="replace")
            self._read(0.05)

    def _lines(self) -> list[str]:
        return self._said.read_text().splitlines() if self._said.exists() else []

    def _read(self, seconds: float) -> None:
        if select.select([self._terminal], [], [], seconds)[0]:
            self._seen += os.read(self._terminal, 65536)


@contextmanager
def shell(name: str, folder: Path) -> Iterator[Shell]:
    """Starts a shell in `folder` with the completion of `dynemo-run`."""
    script, said = folder / f"script.{name}", folder / f"said.{name}"
    text = subprocess.run(
        [sys.executable, "-m", "dynemo", "completion", name], capture_output=True, check=True
    ).stdout
    script.write_bytes(text)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "HOME": str(folder), "TERM": "dumb", "HISTFILE": "/dev/null"}
    process = subprocess.Popen(
        [sys.executable, "-c", _TAKE_TERMINAL, *START[name]],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        made = Shell(ours, said)
        made.set_up(_SET_UP[name].format(script=script, said=said))
        yield made
    finally:
        process.kill()
        process.wait(5)
        os.close(ours)
