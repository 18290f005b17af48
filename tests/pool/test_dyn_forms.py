"""Pools with all kinds of inputs, ingresses, model formats and planes."""

import json
import time
from pathlib import Path

import pytest

from support.command import run
from support.dyn_fleet import Fleet, fleet, get
from support.dyn_servers import Servers
from support.dyn_streams import check, one, streams
from support.waiting import wait_until

QUESTION = "What is the capital of South Africa?"
ANSWER = "The capital of South Africa is Pretoria."


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["round-robin", "least-loaded", "prefix"])
def test_several_ingresses_before_the_same_workers(pool: Fleet, mode: str) -> None:
    pool.workers(2, delay_ms=1)
    ingresses = [pool.ingress("--router-mode", mode, workers=2) for _ in range(2)]
    check(streams(ingresses, 60))


@pytest.mark.timeout(60)
def test_without_servers(tmp_path: Path) -> None:
    flags = ["--discovery", f"file:{tmp_path}", "--request-plane", "tcp", "--lease-ttl", "2"]
    with fleet(flags) as pool:
        first, _ = pool.workers(2)
        ingress = pool.ingress(workers=2)
        check(streams([ingress], 24, (0.8, first.kill)))


@pytest.mark.timeout(60)
def test_the_terminal_s_inputs(servers: Servers, pool: Fleet, tmp_path: Path) -> None:
    source = tmp_path / "asked.jsonl"
    source.write_text("".join(json.dumps({"text": QUESTION}) + "\n" for _ in range(8)))
    pool.workers(2, "out=llama_cpp", "--", "--threads", "1")
    answered = run("in=stdin", f"out={pool.address}", *servers.flags, stdin=QUESTION)
    assert (answered.returncode, answered.stdout) == (0, f"{ANSWER}\n")
    output = tmp_path / "answered.jsonl"
    words: list[str | Path] = [f"in=batch:{source}", f"out={pool.address}", "--output", output]
    assert run(*words, *servers.flags).returncode == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["response"] for line in lines] == [ANSWER] * 8


@pytest.mark.timeout(60)
def test_a_prompt_that_comes_before_its_worker(servers: Servers, pool: Fleet) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as threads:
        words = ["in=stdin", f"out={pool.address}", *servers.flags]
        asked = threads.submit(run, *words, stdin=QUESTION)
        time.sleep(0.5)
        assert not asked.done()
        pool.workers(1, "out=llama_cpp", "--", "--threads", "1")
        done = asked.result(15)
    assert (done.returncode, done.stdout) == (0, f"{ANSWER}\n")
    assert f"Waiting for a worker of {pool.address}" in done.stderr


@pytest.mark.timeout(60)
def test_one_model_in_two_forms_and_engines(pool: Fleet, demo: Path, demo_folder: Path) -> None:
    name = ["--model-name", "demo"]
    pool.workers(1, "out=llama_cpp", demo, *name, "--", "--threads", "1")
    pool.workers(1, demo_folder, *name, delay_ms=0)
    ingress = pool.ingress("--router-mode", "round-robin", workers=2)
    texts = [one(ingress.url, QUESTION, max_tokens=40).text for _ in range(6)]
    assert texts.count(ANSWER) == 3
    status, _, body = get(f"{ingress.url}/health")
    assert status == 200
    [model] = body["models"]
    assert {each["engine"] for each in model["instances"]} == {"echo", "llama_cpp"}


@pytest.mark.timeout(60)
def test_every_model_of_the_namespace(pool: Fleet, servers: Servers) -> None:
    pool.workers(1, "--model-name", "one")
    everything = pool.ingress(out="dyn", workers=1)
    with fleet(servers.flags) as other:
        [worker] = other.workers(1, "--model-name", "two")
        wait_until(lambda: len(_models(everything.url)) == 2)
        assert _models(everything.url) == {"one", "two"}
        for model in ("one", "two"):
            assert one(everything.url, model=model, max_tokens=4).error == ""
        assert one(everything.url, model="three").status == 404
        worker.close()
        wait_until(lambda: one(everything.url, model="two").status == 503)
    assert one(everything.url, model="one", max_tokens=4).error == ""


def _models(url: str) -> set[str]:
    return {model["id"] for model in get(f"{url}/v1/models")[2]["data"]}
