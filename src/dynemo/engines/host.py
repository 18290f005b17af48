"""The engine host: the child process that runs one adapter, in the interpreter that has the engine.

It needs `msgspec` and the engine, nothing else. It is handed one end of a socket pair, answers on
it in frames (`wire/`), and lives only as long as the runner: its standard input is a pipe that the
runner holds, so that even a killed runner ends it, and its whole process group with it.
"""

import os
import shutil
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from dynemo.messages.spec import EngineSpec

_GRACE_SECONDS = 3.0


def start(told: str, fd: int) -> None:
    """The child's main; `told` is the file of its spec. Exits 0 when the runner lets go of it, 1
    when the engine did not load."""
    from msgspec import json

    from dynemo.messages.spec import EngineSpec

    with open(told, "rb") as file:
        spec = json.decode(file.read(), type=EngineSpec)
    watch = threading.Thread(target=_end_with_runner, args=(spec.workdir,), daemon=True)
    watch.start()
    sys.exit(_run(spec, fd))


def _end_with_runner(workdir: str) -> None:
    while os.read(0, 4096):
        pass
    # The event loop sees its socket close as well, and ends in order if it can.
    time.sleep(_GRACE_SECONDS)
    shutil.rmtree(workdir, ignore_errors=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _run(spec: "EngineSpec", fd: int) -> int:
    import asyncio
    import socket

    from dynemo.engines.serve import serve

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(serve(spec, socket.socket(fileno=fd)))
    finally:
        shutil.rmtree(spec.workdir, ignore_errors=True)


def _loop_factory() -> "Callable[[], AbstractEventLoop] | None":
    """Of uvloop where the engine's interpreter has it: with small models an answer streams by a
    tenth faster. Most engines bring it."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
