"""Guided answers that move from engine to engine in their middle."""

import time
from pathlib import Path
from threading import Thread

import pytest
from jsonschema import Draft202012Validator
from msgspec import json

from support.command import Server
from support.dyn_fleet import Fleet, scrape
from support.dyn_streams import Answer, one
from support.waiting import wait_until

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "marks": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 999},
            "minItems": 400,
            "maxItems": 420,
        },
    },
    "required": ["name", "marks"],
    "additionalProperties": False,
}
LARK = r"start: /[ab]{1500,1900}\./"
STREAMS = 6


def _begun(ingress: Server) -> float:
    """Returns how many answers have begun."""
    found = scrape(ingress).items()
    name = "dynemo_time_to_first_token_seconds_count"
    return sum(value for each, value in found if each.startswith(name))


def _asked(ingress: str, fields: dict[str, object]) -> tuple[list[Thread], list[Answer]]:
    got: list[Answer] = []

    def ask() -> None:
        got.append(one(ingress, "Count to ten.", max_tokens=3000, temperature=0, **fields))

    asking = [Thread(target=ask) for _ in range(STREAMS)]
    for thread in asking:
        thread.start()
    return asking, got


@pytest.mark.timeout(90)
def test_guided_answers_move_between_engines(pool: Fleet, demo: Path, demo_folder: Path) -> None:
    name = ["--model-name", "demo"]
    [checkout] = pool.workers(1, "out=mistralrs", demo_folder, *name)
    [gguf] = pool.workers(1, "out=llama_cpp", demo, *name, "--", "--threads", "1")
    pool.workers(1, "out=llama_cpp", demo, *name, "--", "--threads", "1")
    ingress = pool.ingress("--router-mode", "round-robin", workers=3)
    asking, got = _asked(ingress.url, {"guided_json": SCHEMA})
    wait_until(lambda: _begun(ingress) >= STREAMS // 2)
    checkout.kill()
    time.sleep(0.2)
    gguf.kill()
    for thread in asking:
        thread.join(60)
    assert [(answer.error, answer.finish) for answer in got] == [("", "stop")] * STREAMS
    for answer in got:
        Draft202012Validator(SCHEMA).validate(json.decode(answer.text))
    assert any(" moves to another instance after" in line for line in ingress.lines)


@pytest.mark.timeout(90)
def test_a_grammar_that_cannot_be_advanced_says_so(pool: Fleet, demo: Path) -> None:
    name = ["--model-name", "demo"]
    [first] = pool.workers(1, "out=llama_cpp", demo, *name, "--", "--threads", "1")
    pool.workers(1, "out=llama_cpp", demo, *name, "--", "--threads", "1")
    ingress = pool.ingress("--router-mode", "round-robin", workers=2)
    asking, got = _asked(ingress.url, {"guided_grammar": LARK})
    wait_until(lambda: _begun(ingress) == STREAMS)
    first.kill()
    for thread in asking:
        thread.join(60)
    errors = {answer.error for answer in got} - {""}
    assert all("cannot be advanced past what was written" in error for error in errors)
    assert errors
    assert all(answer.finish == "stop" for answer in got if not answer.error)
