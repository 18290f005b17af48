"""A program that `engine doctor` runs in an engine's own Python: imports the engine that its
argument names, and prints the devices as JSON. Uses only the standard library."""

import json
import os
import sys
from importlib import import_module
from typing import Any


def main(package: str) -> None:
    try:
        engine = import_module(package)
        torch = sys.modules.get("torch")
        devices, free = _torch_devices(torch) if torch else _engine_devices(engine)
        print("\n" + json.dumps({"devices": devices, "free": free or _free_memory()}))
    except BaseException as error:
        message = " ".join(str(error).split())[:300]
        print("\n" + json.dumps({"error": f"{type(error).__name__}: {message}".rstrip(".: ")}))
    sys.stdout.flush()
    # Skips the engine's threads and exit handlers, which may hang.
    os._exit(0)


def _torch_devices(torch: Any) -> tuple[list[str], int]:
    if not torch.cuda.is_available():
        return [], 0
    count = torch.cuda.device_count()
    return [torch.cuda.get_device_name(n) for n in range(count)], torch.cuda.mem_get_info(0)[0]


def _engine_devices(engine: Any) -> tuple[list[str] | None, int]:
    """The devices of llama.cpp. None: the engine lists them only when it loads a model."""
    if not hasattr(engine, "get_device_info"):
        return None, 0
    cpu = engine.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    found = [device for device in engine.get_device_info() if device["type"] != cpu]
    return [device["name"] for device in found], sum(d["memory_free"] for d in found[:1])


def _free_memory() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


main(sys.argv[1])
