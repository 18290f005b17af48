"""mistral.rs held to the contract in both of its forms, and what its adapter has to work around."""

from pathlib import Path

import pytest
from contract import ModelContract, Served

from dynemo.messages import EngineSpec
from dynemo.models.find import Found
from dynemo.models.load import speech_of
from dynemo.text.prompt import Conversation, build_prompt
from dynemo.text.tokenizer import Tokenizer


def spec_of(model: Path, *options: str) -> EngineSpec:
    small = 1 << 20  # one thread: the tests share the machine
    return EngineSpec(
        engine="mistralrs", model=str(model), workdir="", model_bytes=small, options=list(options)
    )


class MistralRsContract(ModelContract):
    @pytest.fixture(autouse=True)
    def tokenizer(self, demo: Path) -> Tokenizer:
        self._template, self._tokenizer = speech_of(Found("gguf", demo, "demo"))
        return self._tokenizer

    def text(self, ids: list[int]) -> str:
        return "".join(map(self._spelled, ids))

    def _spelled(self, token_id: int) -> str:
        word = self._tokenizer.token_text(token_id)
        assert word is not None
        if word.startswith("<|"):
            return word
        return self._tokenizer.detokenizer().feed([token_id])

    @pytest.fixture
    def prompt(self, tokenizer: Tokenizer) -> list[int]:
        chat = Conversation([{"role": "user", "content": "What is the capital of Peru?"}])
        return build_prompt(self._template, tokenizer, chat).token_ids

    @pytest.fixture
    def eos(self, tokenizer: Tokenizer) -> int:
        token_id = tokenizer.token_id("<|eot_id|>")
        assert token_id is not None
        return token_id

    @pytest.fixture
    def own(self, tokenizer: Tokenizer) -> int:
        return tokenizer.encode("The capital of", add_special=False, parse_special=False)[2]

    def test_says_what_it_had_cached(self, served: Served, prompt: list[int], eos: int) -> None:
        """Its cache serves what goes on beyond a sequence that it has had, and not the same one."""
        served.collect(self.request(prompt, 200, stop_ids=[eos]))
        _, finish = served.collect(self.request(prompt + prompt, 200, stop_ids=[eos]))
        assert len(prompt) <= finish.cached_tokens < 2 * len(prompt)


class TestGguf(MistralRsContract):
    @pytest.fixture
    def spec(self, demo: Path) -> EngineSpec:
        return spec_of(demo)


class TestCheckout(MistralRsContract):
    @pytest.fixture
    def spec(self, demo_folder: Path) -> EngineSpec:
        return spec_of(demo_folder)
