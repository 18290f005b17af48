"""The process that judges guides; see `judge.py`.

An engine's module of guides has two functions. `load()` loads its parser. `judge(kind, text)`
returns the text for the engine, or raises GuideRefused or GuideUnsupported. It may do everything
within the bounds, and crash.
"""

import os
import signal
from importlib import import_module
from time import process_time
from types import ModuleType

from msgspec import msgpack, structs

from dynemo import limits
from dynemo.engines.guides.bounds import address_space, limit_cpu, limit_memory
from dynemo.engines.guides.rest.errors import CannotContinue
from dynemo.engines.guides.rest.rest import rest_of
from dynemo.engines.guides.verdict import HEADER_BYTES, GuideRefused, GuideUnsupported, Verdict
from dynemo.foreign import decode_msgpack
from dynemo.messages.request import Guide

#: The tokens of other requests come first, if the CPU is busy.
_NICENESS = 5


def run(name: str) -> None:
    """Judges guides from standard input until it closes. `name` is the engine's module."""
    # A service manager signals all processes of a service; the engine host ends this one.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICENESS)
    answers = os.dup(1)
    os.dup2(2, 1)  # a library may print
    module = import_module(name)
    module.load()
    before = address_space()
    limit_memory()
    with open(0, "rb") as questions, open(answers, "wb") as file:
        while header := questions.read(HEADER_BYTES):
            guide = decode_msgpack(questions.read(int.from_bytes(header)), Guide)
            verdict = _verdict(module, guide)
            if address_space() - before > limits.GUIDE_MEMORY_BYTES // 2:
                verdict = structs.replace(verdict, is_last=True)
            body = msgpack.encode(verdict)
            file.write(len(body).to_bytes(HEADER_BYTES) + body)
            file.flush()


def _verdict(module: ModuleType, guide: Guide) -> Verdict:
    limit_cpu(limits.GUIDE_SECONDS + (limits.GUIDE_REST_SECONDS if guide.written else 0))
    try:
        if not guide.written:
            return _judged(module, guide)
        return _judged(module, rest_of(guide))
    except CannotContinue as error:
        return Verdict(stuck=str(error))
    except GuideRefused as error:
        return Verdict(stuck=str(error)) if guide.written else Verdict(refused=str(error))
    except GuideUnsupported as error:
        return Verdict(unsupported=str(error))
    finally:
        limit_cpu(0)


def _judged(module: ModuleType, guide: Guide) -> Verdict:
    """Raises GuideRefused, GuideUnsupported."""
    began = process_time()
    text = module.judge(guide.kind, guide.text)
    # For a grammar most of the time is our own search, and the engine's parser is quick.
    seconds = 0.0 if guide.kind == "grammar" else process_time() - began
    return Verdict(text, seconds=seconds)
