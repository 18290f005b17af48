"""In the deterministic profile the text over HTTP equals that of llama.cpp's own server.

The profile: F32 weights, flash attention off, an f32 KV cache, temperature 0. With the defaults an
answer may change at a near-tie, because it depends on the other requests of its batch.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from dynemo.models.checkout.read import read_checkout
from support.command import serving
from support.llama_server import LlamaServer

ROOT = Path(__file__).parents[2]
PROFILE = ["--flash-attn", "off", "--cache-type-k", "f32", "--cache-type-v", "f32"]
#: Several threads of an engine would be slow, because other processes share the cores.
PROFILE += ["--threads", "1"]
BUDGET = 48
#: Some of these capitals have letters of several tokens.
COUNTRIES = [
    "South Africa",
    "France",
    "Cameroon",
    "Colombia",
    "Brazil",
    "Iceland",
    "Moldova",
    "Paraguay",
    "Peru",
    "Norway",
    "Italy",
    "Chad",
    "Cuba",
    "Fiji",
    "Iraq",
    "Laos",
    "Mali",
    "Oman",
    "Togo",
    "Chile",
    "Nepal",
    "Qatar",
    "Spain",
    "Syria",
    "Yemen",
    "Zambia",
]
PROMPTS = [
    *(f"What is the capital of {country}?" for country in COUNTRIES),
    *(f"Count to {n}" for n in range(3, 15)),
    "Repeat after me: Books make good friends.",
    "Repeat after me: Birds sing early.",
    "Repeat after me: We met two old friends.",
    "Repeat after me: Keep calm and carry on!",
    *("Hello", "Who are you?", "Tell me a story", "Thanks!", "Write a poem", "2 + 2?", "é 😀 日本"),
    "What is the weather in Paris?",
]


def _messages(prompt: str) -> Any:
    return [{"role": "user", "content": prompt}]


class Reference(LlamaServer):
    def answer(self, prompt: str) -> tuple[list[int], str]:
        text = self.post("/apply-template", {"messages": _messages(prompt)})["prompt"]
        # The server leaves out the BOS of the template. So /tokenize has to add it again.
        ids = self.post("/tokenize", {"content": text, "add_special": True})["tokens"]
        body = {"prompt": ids, "temperature": 0, "n_predict": BUDGET, "cache_prompt": False}
        return ids, self.post("/completion", body)["content"]


@pytest.fixture(scope="module")
def expected(demo_f32: Path) -> dict[str, tuple[list[int], str]]:
    reference = Reference(demo_f32, PROFILE)
    return {prompt: reference.answer(prompt) for prompt in PROMPTS}


@pytest.fixture(scope="module")
def api(demo_f32: Path) -> Iterator[str]:
    with serving(demo_f32, "--model-name", "demo", "--", *PROFILE) as server:
        yield server.api


async def _whole(client: AsyncOpenAI, prompt: str) -> tuple[int, str]:
    got: Any = await client.chat.completions.create(
        model="demo",
        messages=_messages(prompt),
        temperature=0,
        max_tokens=BUDGET,
    )
    return got.usage.prompt_tokens, got.choices[0].message.content or ""


async def _streamed(client: AsyncOpenAI, prompt: str) -> tuple[int, str]:
    stream: Any = await client.chat.completions.create(
        model="demo",
        messages=_messages(prompt),
        temperature=0,
        max_tokens=BUDGET,
        stream=True,
        stream_options={"include_usage": True},
    )
    parts, prompt_tokens = [], 0
    async for chunk in stream:
        if chunk.usage is not None:
            prompt_tokens = chunk.usage.prompt_tokens
        parts += [choice.delta.content or "" for choice in chunk.choices]
    return prompt_tokens, "".join(parts)


def test_there_are_fifty() -> None:
    assert len(set(PROMPTS)) == 50


def test_some_answers_have_characters_of_several_tokens(
    demo_folder: Path, expected: dict[str, tuple[list[int], str]]
) -> None:
    tokenizer = read_checkout(demo_folder).tokenizer
    letters = set("".join(text for _, text in expected.values())) - set(map(chr, range(128)))
    assert any(
        len(tokenizer.encode(letter, add_special=False, parse_special=False)) > 1
        for letter in letters
    )


@pytest.mark.timeout(60)
@pytest.mark.parametrize("at_once", [1, 9])
@pytest.mark.parametrize("ask", [_whole, _streamed])
def test_the_text_is_the_engine_s_own(
    api: str, expected: dict[str, tuple[list[int], str]], ask: Any, at_once: int
) -> None:
    async def body() -> dict[str, tuple[int, str]]:
        limit = asyncio.Semaphore(at_once)

        async def one(client: AsyncOpenAI, prompt: str) -> tuple[int, str]:
            async with limit:
                return await ask(client, prompt)  # type: ignore[no-any-return]

        async with AsyncOpenAI(base_url=api, api_key="none", max_retries=0) as client:
            got = await asyncio.gather(*(one(client, prompt) for prompt in PROMPTS))
        return dict(zip(PROMPTS, got, strict=True))

    assert asyncio.run(body()) == {p: (len(ids), text) for p, (ids, text) in expected.items()}
