"""The views of a pool: `ps`, a worker's metrics, and a trace id in the logs of both sides."""

import json
import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from support.command import Server, run, serving
from support.dyn_fleet import Fleet, Worker, fleet
from support.dyn_servers import Servers
from support.dyn_streams import one, streams
from support.waiting import wait_until

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
#: An engine that prints the trace. The line appears in the log of the process that started it.
TRACING = """
async def generate(request):
    print("asked under", request.traceparent, flush=True)
    yield "yes"
"""


@pytest.fixture(params=["nats", "tcp"])
def pool(servers: Servers, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with fleet([*servers.flags_of(request.param), "--request-plane", request.param]) as started:
        yield started


@contextmanager
def held(*args: Any) -> Iterator[None]:
    """Runs streams during the body, and waits for their ends."""
    thread = Thread(target=streams, args=args)
    thread.start()
    try:
        yield
    finally:
        thread.join(30)


def loads(servers: Servers, pool: Fleet) -> list[dict[str, Any] | None]:
    done = run("ps", "--json", "--etcd", servers.etcd.address, "--nats", servers.nats.url)
    assert done.returncode == 0, done.stderr
    entries = json.loads(done.stdout)["instances"]
    return [each["load"] for each in entries if f"dyn://{each['component']}" == pool.address]


@pytest.mark.timeout(60)
def test_ps_shows_the_load_of_each_instance(servers: Servers, pool: Fleet) -> None:
    idle = {"running": 0, "waiting": 0, "kv_use": 0.0}
    first, _ = pool.workers(2, delay_ms=60)
    ingress = pool.ingress("--router-mode", "round-robin", workers=2)
    assert loads(servers, pool) == [idle, idle]
    with held([ingress], 6):
        wait_until(lambda: loads(servers, pool) == [{**idle, "running": 3}] * 2)
    wait_until(lambda: loads(servers, pool) == [idle, idle])
    first.kill()  # until its lease expires it is registered, but does not answer
    after = loads(servers, pool)
    assert after in ([None, idle], [idle, None], [idle])


def post(server: Server, prompt: str = "Hello", **headers: str) -> dict[str, str]:
    """Sends a request. Returns the headers of the answer."""
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 16}
    request = urllib.request.Request(
        f"{server.api}/chat/completions", json.dumps(body).encode(), headers
    )
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as answer:
        json.load(answer)
        return dict(answer.headers)


def traced(lines: list[str], trace: str = TRACE) -> list[str]:
    """Returns the lines that contain the trace id."""
    return [line for line in lines if trace in line]


def test_one_trace_is_found_on_both_sides(pool: Fleet) -> None:
    worker = pool.start("--log-format", "json", delay_ms=0)
    ingress = pool.ingress(workers=1)
    answer = post(ingress, traceparent=f"00-{TRACE}-{SPAN}-01", tracestate="vendor=1")
    assert not any("trace" in name.lower() for name in answer)
    wait_until(lambda: traced(worker.lines) and traced(ingress.lines))
    (at_worker,), (at_ingress,) = traced(worker.lines), traced(ingress.lines)
    said = json.loads(at_worker)
    assert (said["trace_id"], said["message"]) == (TRACE, "answer: finished")
    assert f"id=chatcmpl-{said['id']} " in at_ingress
    assert f"request_id={answer['x-request-id']} trace_id={TRACE} " in at_ingress
    # A request without a trace id gets a new one.
    post(ingress)
    post(ingress, traceparent="00-nonsense")
    wait_until(lambda: sum("answer: " in line for line in worker.lines) == 3)
    made = [json.loads(line)["trace_id"] for line in worker.lines if "answer: " in line]
    assert len(set(made)) == 3
    wait_until(lambda: all(traced(ingress.lines, trace) for trace in made))


def test_a_stream_that_moves_keeps_its_trace(pool: Fleet) -> None:
    first, second = pool.workers(2, delay_ms=150)
    ingress = pool.ingress("--router-mode", "round-robin", workers=2)
    threads = [
        Thread(target=post, args=(ingress,), kwargs={"traceparent": f"00-{TRACE}-{SPAN}-01"})
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    in_flight, queued = "dynemo_requests_in_flight", "dynemo_requests_queued"
    wait_until(lambda: metric(ingress, in_flight) == 2 and metric(ingress, queued) == 0)
    first.kill()
    for thread in threads:
        thread.join(15)
    wait_until(lambda: len(traced(second.lines)) == 2)
    moved = [line for line in traced(ingress.lines) if " moves to another instance after " in line]
    assert moved
    assert metric(ingress, "dynemo_requests_moved_total", model="demo") == len(moved)


@pytest.mark.parametrize("is_remote", [False, True])
def test_an_engine_gets_the_trace(servers: Servers, tmp_path: Path, is_remote: bool) -> None:
    file = tmp_path / "telling.py"
    file.write_text(TRACING)
    given = {"traceparent": f"00-{TRACE}-{SPAN}-01"}

    def check(server: Server, lines: list[str]) -> None:
        post(server, **given)
        wait_until(lambda: any("asked under" in line for line in lines))
        (line,) = [line for line in lines if "asked under" in line]
        found = re.search(rf"asked under 00-{TRACE}-([0-9a-f]{{16}})-01", line)
        assert found is not None
        assert found[1] != SPAN  # the span is our own

    if not is_remote:
        with serving(f"out={file}", "-v") as server:
            check(server, server.lines)
        return
    with fleet(servers.flags) as pool:
        worker = pool.start(f"out={file}", "-v")
        check(pool.ingress(workers=1), worker.lines)


def metric(server: Server | str, name: str, **labels: str) -> float:
    """Returns the sum of a metric's samples with these labels."""
    url = server if isinstance(server, str) else server.url
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if re.match(rf"{name}[{{ ]", line) and all(each in line for each in wanted)
    )


def status_url(worker: Worker) -> str:
    wait_until(lambda: worker.is_ready)
    (found,) = re.findall(r"status (http://\S+)", "\n".join(worker.lines))
    return str(found)


@pytest.mark.timeout(60)
def test_the_metrics_of_a_worker(servers: Servers) -> None:
    with fleet(servers.flags) as pool:
        worker = pool.start("--status-port", "0", delay_ms=20)
        ingress, url = pool.ingress(workers=1), status_url(worker)
        whole = one(ingress.url, max_tokens=5)
        assert whole.usage is not None
        with held([ingress], 2):
            wait_until(lambda: metric(url, "dynemo_worker_requests_in_flight") == 2)
            wait_until(lambda: metric(url, "dynemo_engine_running") == 2)
            os.kill(worker.host_pids()[0], signal.SIGKILL)
        wait_until(lambda: metric(url, "dynemo_engine_restarts_total", model="demo") == 1)
        ended = "dynemo_worker_requests_total"
        wait_until(lambda: metric(url, ended, outcome="finished") == 3)
        assert metric(url, ended, outcome="lost") == 2
        assert metric(url, "dynemo_worker_requests_in_flight") == 0
        assert metric(url, "dynemo_worker_input_tokens_total") > 3 * whole.usage[0]
        # Tokens from before the move count, too.
        assert metric(url, "dynemo_worker_output_tokens_total") == 5 + 2 * 128
        assert metric(url, "dynemo_worker_request_duration_seconds_count", outcome="finished") == 3
        # A worker has no metrics of an ingress.
        assert metric(url, "dynemo_requests_total") == 0
        assert metric(url, "dynemo_requests_moved_total") == 0
        wait_until(lambda: metric(ingress, "dynemo_requests_total", status="200") == 3)
        assert metric(ingress, "dynemo_engine_restarts_total") == 0


def test_an_answer_that_nobody_wants_any_more(servers: Servers) -> None:
    with fleet(servers.flags) as pool:
        worker = pool.start("--status-port", "0", delay_ms=100)
        ingress, url = pool.ingress(workers=1), status_url(worker)
        thread = Thread(target=streams, args=([ingress], 1))
        thread.start()
        wait_until(lambda: metric(url, "dynemo_worker_requests_in_flight") == 1)
        ingress.process.kill()
        thread.join(10)
        cancelled = {"outcome": "cancelled"}
        wait_until(lambda: metric(url, "dynemo_worker_requests_total", **cancelled) == 1)
        assert metric(url, "dynemo_worker_requests_in_flight") == 0
        wait_until(lambda: any("answer: cancelled" in line for line in worker.lines))
