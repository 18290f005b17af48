"""Streams of llama.cpp that move to another instance.

In the deterministic profile their text is the same as without a move. With the default settings
they are complete.
"""

import signal
from pathlib import Path

import pytest

from support.dyn_fleet import fleet
from support.dyn_servers import Servers
from support.dyn_streams import MANY, TOKENS, streams

ROOT = Path(__file__).parents[2]
PROFILE = ["--flash-attn", "off", "--cache-type-k", "f32", "--cache-type-v", "f32"]
PROFILE += ["--threads", "1"]
#: Room for all streams, also if a busy machine takes long to send them.
QUEUE = ["--max-queue", str(MANY)]
#: Prompts whose answers have no near-ties. At a near-tie the answer could change if the prompt is
#: computed in one piece instead of token by token.
TEXTS = [
    *(f"Count to {n}" for n in range(8, 16)),
    "Repeat after me: Books make good friends.",
    "Repeat after me: Birds sing early.",
    "Repeat after me: We met two old friends.",
    "Repeat after me: Keep calm and carry on!",
    *(f"What is the capital of {place}?" for place in ("South Africa", "Peru", "Chad", "Iceland")),
    *("Tell me a story", "Write a poem", "Who are you?"),
]


@pytest.mark.timeout(90)
def test_a_worker_is_killed_and_another_stopped(servers: Servers, demo_f32: Path) -> None:
    with fleet(servers.flags) as pool:
        words: list[str | Path] = ["out=llama_cpp", demo_f32, "--model-name", "demo"]
        words += ["--grace", "0.1"]
        first, second, _ = pool.workers(3, *words, "--", *PROFILE)
        ingress = pool.ingress("--router-mode", "round-robin", *QUEUE, workers=3)
        expected = streams([ingress], MANY, texts=TEXTS)
        assert {answer.error for answer in expected} == {""}
        half = max(answer.seconds for answer in expected) / 2
        got = streams(
            [ingress],
            MANY,
            (half / 2, first.kill),
            (half, lambda: second.send(signal.SIGTERM)),
            texts=TEXTS,
        )
        # These answers are short, so perhaps none is at its middle when its worker ends; the next
        # test has long ones, which must move.
        assert [answer.whole for answer in got] == [answer.whole for answer in expected]


@pytest.mark.timeout(90)
def test_default_settings_lose_nothing(servers: Servers, demo: Path) -> None:
    with fleet(servers.flags) as pool:
        words: list[str | Path] = ["out=llama_cpp", demo, "--grace", "0.1", "--", "--threads", "1"]
        first, second, _ = pool.workers(3, *words)
        ingress = pool.ingress("--router-mode", "round-robin", *QUEUE, workers=3)
        got = streams(
            [ingress],
            MANY,
            (1, first.kill),
            (2, lambda: second.send(signal.SIGTERM)),
            texts=TEXTS,
            ignore_eos=True,
        )
        assert {answer.error for answer in got} == {""}
        assert {answer.finish for answer in got} == {"length"}
        assert {answer.usage and answer.usage[1] for answer in got} == {TOKENS}
        assert sum(" moves to another instance after" in line for line in ingress.lines) >= 1
