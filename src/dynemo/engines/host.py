"""The engine host: a child process that runs one adapter in the engine's own interpreter.

It needs only `msgspec` and the engine. It inherits one end of a socket pair and answers on it in
frames (`wire/`). It lives only as long as the runner: its standard input is a pipe that the runner
holds. So even if the runner is killed, the host ends, together with its process group.
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


def start(spec_file: str, fd: int) -> None:
    """Runs the child process. `spec_file` is the path of its EngineSpec in JSON.

    It exits with 0 when the runner closes the connection, and with 1 if the engine fails to load.
    """
    from dynemo.descriptors import set_limit
    from dynemo.foreign import decode_json
    from dynemo.messages.spec import EngineSpec

    with open(spec_file, "rb") as file:
        spec = decode_json(file.read(), EngineSpec)
    if spec.descriptors:
        set_limit(spec.descriptors)
    watch = threading.Thread(target=_end_with_runner, args=(spec.workdir,), daemon=True)
    watch.start()
    sys.exit(_run(spec, fd))


def _end_with_runner(workdir: str) -> None:
    while os.read(0, 4096):
        pass
    # The event loop also sees its socket close, and ends in order if it can.
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
    """Returns uvloop's factory if the engine's interpreter has uvloop, as most engines do.

    With small models uvloop streams answers 10 % faster.
    """
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
