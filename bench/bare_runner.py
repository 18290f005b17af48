"""The peer of `out=mistralrs`: mistral.rs's own Python runner in its own process.

`python -m bench.bare_runner SPEC_JSON` reads one task per line of JSON from standard input: the
`body` of a chat completion, and `streams` to run at the same time. It answers each with one line,
an `Outcome` of `bench.client`.
"""

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import msgspec

from bench.client import Outcome
from dynemo.engines.mistralrs.model import default_slots, environment, is_gguf
from dynemo.messages.spec import EngineSpec


def main() -> None:
    spec = msgspec.json.decode(sys.argv[1], type=EngineSpec)
    os.environ.update(environment(spec))
    runner = _load(spec)
    print(flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(_run(runner, **json.loads(line)))), flush=True)


def _load(spec: EngineSpec) -> Any:
    import mistralrs

    model = Path(spec.model)
    if is_gguf(spec):
        which: Any = mistralrs.Which.GGUF(
            quantized_model_id=str(model.parent), quantized_filename=model.name
        )
    else:
        which = mistralrs.Which.Plain(model_id=str(model))
    return mistralrs.Runner(which=which, max_seqs=default_slots(spec, "cpu"))


def _run(runner: Any, body: dict[str, Any], streams: int) -> Outcome:
    lock = Lock()  # the runner refuses two calls at the same time
    firsts: list[float] = []
    usages: list[Any] = []

    def ask() -> None:
        began = time.perf_counter()
        with lock:
            chunks = runner.send_chat_completion_request(_request(body))
        chunk = next(chunks)
        firsts.append(time.perf_counter() - began)
        for chunk in chunks:  # noqa: B007 (the last one is what counts)
            pass
        usages.append(chunk.usage)

    threads = [Thread(target=ask) for _ in range(streams)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    tokens = sum(usage.completion_tokens for usage in usages)
    return Outcome(
        seconds=seconds,
        tokens=tokens,
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        first=firsts,
    )


def _request(body: dict[str, Any]) -> Any:
    import mistralrs

    return mistralrs.ChatCompletionRequest(
        messages=body["messages"],
        model="default",
        stream=True,
        max_tokens=body["max_tokens"],
        ignore_eos=body["ignore_eos"],
        temperature=body["temperature"],
    )


if __name__ == "__main__":
    main()
