"""Engines that report that they have loaded, and die at once."""

import sys
from pathlib import Path

LAST_WORDS = "The engine ended with exit code 1: RuntimeError: no luck."
_HOST = """
import socket, sys
from msgspec import json, msgpack
from dynemo.wire.versions import SPOKEN
from dynemo.messages.records import Capabilities, Instance
from dynemo.messages.spec import EngineSpec
from dynemo.messages.wire import Hello
from dynemo.wire.frames import FrameKind, encode

spec = json.decode(open(sys.argv[-2], "rb").read(), type=EngineSpec)
instance = Instance(
    id=spec.instance,
    engine=spec.engine,
    version="0",
    device="cpu",
    context_length=8,
    slots=1,
    capabilities=Capabilities(),
)
hello = encode(FrameKind.HELLO, 0, msgpack.encode(Hello(SPOKEN.newest, instance)))
socket.socket(fileno=int(sys.argv[-1])).sendall(hello)
sys.exit("RuntimeError: no luck")
"""


def short_lived(folder: Path) -> Path:
    """Returns a fake Python that has every engine. Each engine dies as soon as it has loaded."""
    host, program = folder / "host.py", folder / "python"
    host.write_text(_HOST)
    program.write_text(
        '#!/bin/sh\nif [ "$1" = -c ]; then echo 3.11; exit; fi\n'
        f"exec '{sys.executable}' '{host}' \"$@\"\n"
    )
    program.chmod(0o755)
    return program
