"""`--router-mode prefix` against `random`: conversations over four workers with real engines.

Every conversation starts with its own thousand tokens, and each turn adds some. All conversations
take a turn before any takes its next one. The engines report what they computed: prompt tokens
without those in their caches.
"""

import random
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import Any

from bench.client import Task, client
from bench.plan import Plan, chat
from bench.pool import ingress, planes, worker
from bench.random_model import SMALL, cached_model
from bench.table import Row, ratio

_WORKERS = 4
_TURNS = 6
_AT_ONCE = 8
_HISTORY = 600  # words: about 1,000 tokens
_TURN = 30  # words of a question, and of its answer
_ANSWER = 8  # generated tokens; the conversation continues with another text
_WORDS = (
    "the capital of a lighthouse where rain and snow are counted is named after its oldest tree"
)


@dataclass(frozen=True)
class _Played:
    computed: int  #: prompt tokens
    first: float  #: median TTFT in ms


def prefix_rows(plan: Plan) -> list[Row]:
    turns = _conversations(plan.conversations)
    played: dict[str, list[_Played]] = {"prefix": [], "random": []}
    for number in range(plan.prefixes):
        for mode in sorted(played, reverse=bool(number % 2)):
            played[mode].append(_play(mode, turns))
    how = f"{plan.conversations} conversations of {_TURNS} turns, prefix (peer: random)"
    computed = [[one.computed for one in side] for side in played.values()]
    firsts = [[one.first for one in side] for side in played.values()]
    return [
        ratio(f"prompt tokens computed, {how}", "tokens", *computed, goal=0.5),
        ratio(f"TTFT, {how}", "ms", *firsts, goal=1.0),
    ]


def _play(mode: str, turns: list[list[dict[str, Any]]]) -> _Played:
    """Plays the turns on new workers, whose caches are empty."""
    path = cached_model(SMALL)
    with planes() as servers, ExitStack() as stack, client() as load:
        for _ in range(_WORKERS):
            stack.enter_context(worker(servers, path, "out=llama_cpp"))
        asking = stack.enter_context(ingress(servers, "--router-mode", mode, instances=_WORKERS))
        outcomes = [load.run(Task(asking.port, streams=_AT_ONCE, bodies=turn)) for turn in turns]
    firsts = [first for outcome in outcomes for first in outcome.first]
    computed = sum(outcome.prompt_tokens - outcome.cached_tokens for outcome in outcomes)
    return _Played(computed, median(firsts) * 1e3)


def _conversations(count: int) -> list[list[dict[str, Any]]]:
    """Returns, for each turn, the requests of all conversations."""
    rng = random.Random(1)
    words = _WORDS.split()

    def text(size: int) -> str:
        return " ".join(rng.choices(words, k=size))

    def conversation() -> list[dict[str, Any]]:
        asked = [text(_HISTORY), *[text(_TURN) for _ in range(_TURNS - 1)]]
        added = [[_says("user", question), _says("assistant", text(_TURN))] for question in asked]
        return [_asked(messages[:-1]) for messages in accumulate(added)]

    return [list(turn) for turn in zip(*[conversation() for _ in range(count)], strict=True)]


def _says(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _asked(messages: list[dict[str, str]]) -> dict[str, Any]:
    return chat("", max_tokens=_ANSWER, ignore_eos=True) | {"messages": messages}
