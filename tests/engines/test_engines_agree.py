"""Compares the greedy text of the engines for one model, on 100 prompts.

Engines sum in different orders and formats (a GGUF in Q8_0, a checkout in bfloat16, a 16-bit
cache). So two answers may diverge where two tokens are almost equally likely. This test checks that
they diverge nowhere else. The probabilities are computed here, from the checkout in float32.

To add an engine, add one line to `SIDES`.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path

import pytest

from dynemo.messages.ask import text_turn
from dynemo.messages.request import Request
from dynemo.messages.spec import EngineSpec
from dynemo.models.find import Found
from dynemo.models.load import template_and_tokenizer_of
from dynemo.prompt.render import RenderInput, build_prompt
from dynemo.tokenizers.base import Tokenizer
from support.demo_logits import DemoLogits
from support.engine_contract import GREEDY, collect, running

#: Nats between two tokens' log-probabilities. Below this distance either token may be chosen.
NEAR = 1.0
#: How many of 100 texts two engines must have in common.
SAME = 80
TOKENS = 40
AT_ONCE = 8


@dataclass(frozen=True)
class Side:
    engine: str
    form: str  #: gguf or checkout
    options: tuple[str, ...] = ()
    seconds: float = 15  #: limit for the load
    is_installed: bool = True  #: with the package; otherwise in its own environment


SIDES = {
    "llama_cpp, GGUF": Side("llama_cpp", "gguf", ("--threads", "1")),
    "mistralrs, GGUF": Side("mistralrs", "gguf"),
    "mistralrs, checkout": Side("mistralrs", "checkout"),
    "vllm, checkout": Side("vllm", "checkout", seconds=400, is_installed=False),
    "sglang, checkout": Side("sglang", "checkout", seconds=400, is_installed=False),
}
REFERENCE = "llama_cpp, GGUF"

_COUNTRIES = (
    "Peru", "Chile", "France", "Germany", "Japan", "Kenya", "Norway", "Sweden", "Finland", "Poland",
    "Spain", "Portugal", "Italy", "Greece", "Turkey", "Egypt", "Morocco", "Ghana", "Nigeria",
    "Canada", "Mexico", "Brazil", "Cuba", "India", "China", "Nepal", "Mongolia", "Vietnam",
    "Thailand", "Australia",
)  # fmt: skip
_WISHES = (
    "Repeat after me: the {} goes home.",
    "Tell me a story about {}.",
    "Count to {}.",
    "Why is {} blue, and who says so?",
)
_THINGS = (
    "seven",
    "a dog",
    "12",
    "the old man",
    "rain",
    "Ångström",
    "20",
    "x = 3",
    "tea",
    "Zürich",
)
QUESTIONS = [
    *(f"What is the capital of {name}?" for name in _COUNTRIES),
    *(f"Which country's capital do they speak of in {name}?" for name in _COUNTRIES),
    *(wish.format(thing) for wish in _WISHES for thing in _THINGS),
]


@dataclass(frozen=True)
class Asked:
    """The prompts, and an engine's answers: one text per token."""

    tokenizer: Tokenizer
    requests: list[Request]

    def answers(self, spec: EngineSpec, python: str, seconds: float) -> list[list[str]]:
        return asyncio.run(self._ask_all(spec, python, seconds))

    async def _ask_all(self, spec: EngineSpec, python: str, seconds: float) -> list[list[str]]:
        few = asyncio.Semaphore(AT_ONCE)
        async with running(spec, python, seconds) as local:

            async def ask(request: Request) -> list[str]:
                async with few:
                    tokens, _ = await collect(local, request)
                return self._texts(tokens)

            return list(await asyncio.gather(*map(ask, self.requests)))

    def _texts(self, tokens: list[int | str]) -> list[str]:
        detokenizer = self.tokenizer.detokenizer()
        return [token if isinstance(token, str) else detokenizer.feed([token]) for token in tokens]


@dataclass(frozen=True)
class Divergence:
    """The position at which two answers to one prompt diverge."""

    question: str
    position: int  #: of the first token that differs
    tokens: tuple[str, str]
    gap: float  #: nats between the less likely of the two and the most likely token

    def __str__(self) -> str:
        one, other = self.tokens
        return (
            f"{self.question!r}, token {self.position}: {one!r} or {other!r}, {self.gap:.3f} nats"
        )


@pytest.fixture(scope="module")
def asked(demo: Path) -> Asked:
    template, tokenizer = template_and_tokenizer_of(Found("gguf", demo, "demo"))
    eos = tokenizer.token_id("<|eot_id|>")
    assert eos is not None
    requests = []
    for question in QUESTIONS:
        chat = RenderInput([text_turn("user", question)])
        prompt = build_prompt(template, tokenizer, chat)
        request = Request(
            id=question,
            token_ids=prompt.token_ids,
            prompt=prompt.text,
            max_tokens=TOKENS,
            sampling=GREEDY,
            stop_ids=[eos],
        )
        requests.append(request)
    return Asked(tokenizer, requests)


@pytest.fixture(scope="module")
def answers(
    asked: Asked, demo: Path, demo_folder: Path, engine_python: Callable[[str], str]
) -> Callable[[str], list[list[str]]]:
    """Returns a function that gives the answers of one side.

    It skips engines that are not installed.
    """

    @cache
    def ask(name: str) -> list[list[str]]:
        side = SIDES[name]
        model = demo if side.form == "gguf" else demo_folder
        spec = EngineSpec(
            engine=side.engine,
            model=str(model),
            workdir="",
            model_bytes=1 << 20,
            model_context=4096,
            kv_bytes_per_token=4096,
            vocabulary=1536,
            options=list(side.options),
        )
        python = sys.executable if side.is_installed else engine_python(side.engine)
        return asked.answers(spec, python, side.seconds)

    return ask


@pytest.mark.timeout(500)
@pytest.mark.parametrize("name", [name for name in SIDES if name != REFERENCE])
def test_two_engines_diverge_only_if_two_tokens_are_equally_likely(
    name: str, asked: Asked, answers: Callable[[str], list[list[str]]]
) -> None:
    assert len(QUESTIONS) == len(set(QUESTIONS)) == 100
    divergences = list(_divergences(asked, answers(REFERENCE), answers(name)))
    same = len(QUESTIONS) - len(divergences)
    report = [f"{REFERENCE} and {name}: {same} of {len(QUESTIONS)} texts are the same"]
    report += map(str, sorted(divergences, key=lambda divergence: -divergence.gap))
    print("\n  ".join(report))
    assert same >= SAME, report
    assert all(divergence.gap < NEAR for divergence in divergences), report


def _divergences(
    asked: Asked, ones: list[list[str]], others: list[list[str]]
) -> Iterator[Divergence]:
    logits = DemoLogits()
    for request, one, other in zip(asked.requests, ones, others, strict=True):
        if one == other:
            continue
        pairs = enumerate(zip_longest(one, other))
        at = next(number for number, (token, its) in pairs if token != its)
        common = asked.tokenizer.encode("".join(one[:at]), add_special=False, parse_special=False)
        likely = logits.log_probabilities([*request.token_ids, *common])
        tokens = _at(one, at), _at(other, at)
        least = min(likely[_id(asked.tokenizer, text, request)] for text in tokens)
        yield Divergence(request.id, at, tokens, float(likely.max() - least))


def _at(texts: list[str], position: int) -> str:
    """Returns the text at a position. After the last text comes the end, which has no text."""
    return texts[position] if position < len(texts) else ""


def _id(tokenizer: Tokenizer, text: str, request: Request) -> int:
    """Returns the id of the token with this text, or of the end-of-sequence token for ""."""
    ids = tokenizer.encode(text, add_special=False, parse_special=False)
    return ids[0] if ids else request.stop_ids[0]
