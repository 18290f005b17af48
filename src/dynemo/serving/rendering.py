"""Renders a conversation in a child process, where a chat template cannot hold up this one."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dynemo.errors import DynemoError, EngineError, RequestError
from dynemo.limits import RENDER_SECONDS
from dynemo.prompt import child
from dynemo.prompt.control.render import Rendered
from dynemo.prompt.probe import Message
from dynemo.prompt.render import RenderInput
from dynemo.prompt.template import ChatTemplate
from dynemo.wire.failures import decode_error

#: The child ends itself after some seconds of its own time. This bounds a machine that gives it
#: none.
_WALL_SECONDS = 15 * RENDER_SECONDS
_PACKAGE = Path(__file__).resolve().parents[2]


def render_apart(
    template: ChatTemplate, chat: RenderInput, messages: Sequence[Message] | None = None
) -> Rendered:
    """Returns what `render_prompt` returns, or `render_as_given` for `messages`.

    It blocks for up to some seconds. Raises RequestError, also if the template needs too much time
    or memory.
    """
    try:
        work = child.pack(template, chat, messages)
    except RecursionError:
        raise child.cannot_render("they are nested too deeply") from None
    command = [sys.executable, "-P", "-m", child.__name__]
    environment = {**os.environ, "PYTHONPATH": str(_PACKAGE)}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=environment,
    ) as process:
        try:
            answer, _ = process.communicate(work, timeout=_WALL_SECONDS)
        except subprocess.TimeoutExpired:
            raise child.cannot_render(f"it takes more than {RENDER_SECONDS} s") from None
        finally:
            process.kill()
    return _read(answer, process.returncode)


def _read(answer: bytes, code: int) -> Rendered:
    if code == -signal.SIGPROF:
        raise child.cannot_render(f"it takes more than {RENDER_SECONDS} s")
    if code:
        raise child.cannot_render(f"its process ended with {code}")
    if answer[:1] == b"+":
        return child.unpack(answer[1:])
    error: DynemoError = decode_error(answer[1:])
    raise error if isinstance(error, RequestError) else EngineError(str(error))
