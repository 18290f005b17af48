"""Run by `engine doctor` as a program, in an engine's own Python: imports the engine named in its
argument, and prints as JSON what it sees. Needs the standard library alone."""

import json
import os
import sys
from importlib import import_module
from typing import Any


def main(package: str) -> None:
    try:
        engine = import_module(package)
        torch = sys.modules.get("torch")
        devices, free = _of_torch(torch) if torch else _of_engine(engine)
        print("\n" + json.dumps({"devices": devices, "free": free or _memory()}))
    except BaseException as error:
        words = " ".join(str(error).split())[:300]
        print("\n" + json.dumps({"error": f"{type(error).__name__}: {words}"}))
    sys.stdout.flush()
    # An engine's own threads and exit handlers are of no interest, and may hang.
    os._exit(0)


def _of_torch(torch: Any) -> tuple[list[str], int]:
    if not torch.cuda.is_available():
        return [], 0
    count = torch.cuda.device_count()
    return [torch.cuda.get_device_name(n) for n in range(count)], torch.cuda.mem_get_info(0)[0]


def _of_engine(engine: Any) -> tuple[list[str], int]:
    """llama.cpp names what it computes on; others do not say before they load a model."""
    if not hasattr(engine, "get_device_info"):
        return [], 0
    cpu = engine.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    found = [device for device in engine.get_device_info() if device["type"] != cpu]
    return [device["name"] for device in found], sum(d["memory_free"] for d in found[:1])


def _memory() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


main(sys.argv[1])
