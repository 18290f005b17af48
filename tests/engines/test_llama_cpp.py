import asyncio
import re
from pathlib import Path

import pytest
import xllamacpp
from llguidance import LLMatcher, LLTokenizer

from dynemo.engines.llama_cpp.adapter import _decode_event, _Sequence
from dynemo.engines.llama_cpp.params import common_params
from dynemo.errors import RequestError, UsageError
from dynemo.messages import Delta, EngineSpec, Finish, Guide, Request, Sampling
from support.engine_contract import HOT, ModelContract, Served, idle

SCHEMAS = [
    *(f'{{"type":"string","format":"{name}"}}' for name in ("date-time", "email", "uri", "uuid")),
    '{"type":"integer","multipleOf":7,"minimum":0,"maximum":999}',
    '{"type":"array","items":{"type":"number"},"maxItems":20000}',
    '{"type":"object","patternProperties":{"^x":{"type":"integer"}},"minProperties":1}',
    '{"type":"string","pattern":"^[A-Z]{2,4}$"}',
    '{"anyOf":[{"type":"integer"},{"$ref":"#"}]}',
    '{"$ref":"#"}',
]


class TestLlamaCpp(ModelContract):
    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls, demo: Path) -> EngineSpec:
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

    @pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema[:60])
    def test_what_the_check_lets_through_is_followed(
        self, served: Served, prompt: list[int], schema: str
    ) -> None:
        """It is made by another build of llguidance than the one that follows."""
        request = self.request(prompt, 60, guide=Guide("json_schema", schema), sampling=HOT)
        try:
            texts, finish = served.collect(request)
        except RequestError:
            return
        answer = list("".join(texts).encode())
        grammar = f"%llguidance {{}}\nstart: %json {schema}"
        matcher = LLMatcher(LLTokenizer("byte"), grammar)
        assert matcher.try_consume_tokens(answer) == len(answer)
        assert finish.reason == "length" or matcher.is_accepting()

    def test_all_that_it_was_asked_runs_or_waits(self, served: Served, prompt: list[int]) -> None:
        """Some of what waits does so in the server, which does not tell."""

        async def body() -> None:
            local, endless = served.local, self.request(prompt * 20, 2000, ignore_eos=True)
            assert local.instance is not None
            assert local._asker is not None
            slots = local.instance.slots
            streams = [local.generate(endless) for _ in range(slots + 4)]
            tasks = [asyncio.ensure_future(anext(stream)) for stream in streams]
            try:
                async with asyncio.timeout(15):
                    while (local.load.running, local.load.waiting) != (slots, 4):
                        local._asker.ping()
                        await asyncio.sleep(0.02)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                for stream in streams:
                    await stream.aclose()
            await idle(local)

        served.run(body())


def test_a_file_of_arguments_is_read_as_options_are_and_stands_under_them() -> None:
    extra = {"threads": 3, "cache_type_k": "f32", "no-warmup": True, "parallel": 5}
    spec = EngineSpec(
        engine="llama_cpp", model="", workdir="", extra=extra, options=["--parallel", "2"]
    )
    params = common_params(spec, "/nowhere")
    assert params.cpuparams.n_threads == 3
    assert params.cache_type_k == xllamacpp.ggml_type.GGML_TYPE_F32
    assert params.n_parallel == 2


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"threds": 3}, 'did you mean "threads"?'),
        ({"threads": None}, "option --threads takes a whole number from 1 to 256, not null."),
        ({"threads": True}, "--threads takes a whole number from 1 to 256, not true."),
        ({"batch_size": 1}, '--batch-size takes a whole number from 2 up, not "1".'),
        ({"gpu_layers": 2**31}, '--gpu-layers takes a whole number, not "2147483648".'),
        ({"rope_freq_base": "nan"}, '--rope-freq-base takes a number from 0 up, not "nan".'),
        (
            {"cache_type_k": "f33"},
            'takes one of f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl, not "f33".',
        ),
        ({"swa_full": False}, "--swa-full takes true, or is left out, not false."),
        ({"no_warmup": "yes"}, '--no-warmup takes true, or is left out, not "yes".'),
    ],
)
def test_arguments_of_a_file_that_are_wrong(extra: dict[str, object], sentence: str) -> None:
    spec = EngineSpec(engine="llama_cpp", model="", workdir="", extra=extra)
    with pytest.raises(UsageError, match=re.escape(sentence)):
        common_params(spec, "/nowhere")


def _feed(*events: str) -> list[Delta | None]:
    request = Request(
        id="r", token_ids=[1, 2], prompt="", max_tokens=9, sampling=Sampling(), stop_ids=[7]
    )
    sequence = _Sequence(request)
    return [sequence.feed(_decode_event(event)) for event in events]


def test_a_character_of_several_tokens_is_whole_and_counted() -> None:
    said, pair, last = _feed(
        '{"content":"a","tokens":[64],"tokens_predicted":1,"stop":false}',
        '{"content":"😀","tokens":[222],"tokens_predicted":5,"stop":false}',
        '{"stop":true,"stop_type":"limit","tokens_predicted":7,"timings/cache_n":2}',
    )
    assert said == Delta(texts=["a"])
    assert pair == Delta(texts=["", "", "", "😀"])
    # Two tokens more, of a character that never ended.
    assert last == Delta(texts=["", ""], finish=Finish("length", 2, 7, 2))


def test_the_event_after_a_stop_id_says_what_was_cached() -> None:
    progress, said, stop, last = _feed(
        '{"content":"","tokens":[0],"tokens_predicted":0,"prompt_progress":{"cache":1}}',
        '{"content":"a","tokens":[64],"tokens_predicted":1}',
        '{"content":"<e>","tokens":[7],"tokens_predicted":2}',
        '{"stop":true,"stop_type":"eos","tokens_predicted":2,"timings/cache_n":1}',
    )
    assert (progress, stop) == (None, None)
    assert said == Delta(texts=["a"], cached_tokens=1)
    assert last == Delta(texts=[""], finish=Finish("stop", 2, 2, 1))
