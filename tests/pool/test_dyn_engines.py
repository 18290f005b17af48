"""One model name, served by two engines and from a GGUF and a checkout."""

import time
from pathlib import Path
from threading import Thread

import pytest

from support.dyn_fleet import Fleet, get
from support.dyn_streams import Answer, one

QUESTION = "What is the capital of South Africa?"
ANSWER = "The capital of South Africa is Pretoria."
BUDGET = 600


@pytest.mark.timeout(90)
def test_a_stream_moves_from_engine_to_engine(pool: Fleet, demo: Path, demo_folder: Path) -> None:
    """All engines compute the same sentence. After its end the test only counts the tokens."""
    name = ["--model-name", "demo"]
    [gguf] = pool.workers(1, "out=mistralrs", demo, *name)
    [checkout] = pool.workers(1, "out=mistralrs", demo_folder, *name)
    pool.workers(1, "out=llama_cpp", demo, *name, "--", "--threads", "1")
    ingress = pool.ingress("--router-mode", "round-robin", workers=3)
    [model] = get(f"{ingress.url}/health")[2]["models"]
    assert [each["engine"] for each in model["instances"]].count("mistralrs") == 2

    for _ in range(6):
        assert one(ingress.url, QUESTION, max_tokens=40).text == ANSWER

    got: list[Answer] = []

    def ask() -> None:
        fields = {"max_tokens": BUDGET, "ignore_eos": True, "temperature": 0}
        got.append(one(ingress.url, QUESTION, **fields))

    asking = [Thread(target=ask) for _ in range(6)]
    for thread in asking:
        thread.start()
    time.sleep(0.3)
    for worker in (gguf, checkout):
        worker.kill()
        time.sleep(0.3)
    for thread in asking:
        thread.join(60)
    assert [(answer.error, answer.finish) for answer in got] == [("", "length")] * 6
    assert {answer.usage[1] for answer in got if answer.usage} == {BUDGET}
    assert all(answer.text.startswith(ANSWER) for answer in got)
    assert any(" moves to another instance after" in line for line in ingress.lines)
