from pathlib import Path

import pytest
from contract import ModelContract

from dynemo.messages import EngineSpec
from dynemo.models.find import Found
from dynemo.models.load import speech_of
from dynemo.text.prompt import Conversation, build_prompt


class TestLlamaCpp(ModelContract):
    @pytest.fixture
    def spec(self, demo: Path) -> EngineSpec:
        # F32 sums in one order: alone or in a batch, the ids are the same.
        options = ["--flash-attn", "off", "--cache-type-k", "f32", "--cache-type-v", "f32"]
        return EngineSpec(
            engine="llama_cpp",
            model=str(demo),
            workdir="",
            model_context=4096,
            kv_bytes_per_token=4096,
            options=[*options, "--threads", "1"],
        )

    @pytest.fixture
    def prompt(self, demo: Path) -> list[int]:
        template, tokenizer = speech_of(Found("gguf", demo, "demo"))
        chat = Conversation([{"role": "user", "content": "What is the capital of Peru?"}])
        return build_prompt(template, tokenizer, chat).token_ids

    @pytest.fixture
    def eos(self, demo: Path) -> int:
        _, tokenizer = speech_of(Found("gguf", demo, "demo"))
        token_id = tokenizer.token_id("<|eot_id|>")
        assert token_id is not None
        return token_id
