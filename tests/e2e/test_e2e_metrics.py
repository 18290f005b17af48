"""The metrics of real engines at `/metrics`."""

import json
import re
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

import pytest

from support.command import Server, serving
from support.dyn_fleet import Fleet
from support.waiting import wait_until

QUESTION = "What is the capital of Peru?"


def _value(url: str, name: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
        found = re.findall(rf"^{name}{{.*}} (\S+)$", answer.read().decode(), re.MULTILINE)
    return sum(map(float, found))


def _ask(server: Server, **fields: object) -> int:
    """Sends a request. Returns how many tokens of its prompt were in the cache."""
    body = {"messages": [{"role": "user", "content": QUESTION}], **fields}
    headers = {"content-type": "application/json"}
    url = f"{server.api}/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        cached: int = json.load(answer)["usage"]["prompt_tokens_details"]["cached_tokens"]
        return cached


@contextmanager
def _busy(server: Server) -> Iterator[None]:
    """Keeps the engine busy with long answers, one after the other."""
    is_over = False

    def ask() -> None:
        while not is_over:
            _ask(server, max_tokens=3000, ignore_eos=True)

    thread = Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        is_over = True
        thread.join(60)


@pytest.mark.timeout(90)
def test_of_a_local_engine(demo: Path) -> None:
    with serving(demo) as server:
        wait_until(lambda: any("· engine" in line for line in server.lines))
        assert _ask(server) == 0
        cached = _ask(server)
        assert cached > 0
        wait_until(lambda: _value(server.url, "dynemo_cached_tokens_total") == cached)
        with _busy(server):
            wait_until(lambda: _value(server.url, "dynemo_engine_running") == 1, 20)
            wait_until(lambda: _value(server.url, "dynemo_engine_kv_use") > 0, 20)
        wait_until(lambda: _value(server.url, "dynemo_engine_running") == 0, 20)


@pytest.mark.timeout(120)
def test_of_a_worker_s_engine(demo: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        pool = Fleet(stack, ["--discovery", f"file:{tmp_path}"])
        worker = pool.start("out=llama_cpp", demo, "--status-port", "0")
        ingress = pool.ingress(workers=1)
        wait_until(lambda: worker.is_ready, 20)
        [status] = re.findall(r"status (http://\S+)", "\n".join(worker.lines))
        _ask(ingress)
        cached = _ask(ingress)
        assert cached > 0
        wait_until(lambda: _value(ingress.url, "dynemo_cached_tokens_total") == cached)
        wait_until(lambda: _value(status, "dynemo_worker_cached_tokens_total") == cached)
        with _busy(ingress):
            for url in (status, ingress.url):
                wait_until(lambda url=url: _value(url, "dynemo_engine_running") == 1, 20)
                wait_until(lambda url=url: _value(url, "dynemo_engine_kv_use") > 0, 20)
