import asyncio
import re
from contextlib import closing
from pathlib import Path

import pytest
import xllamacpp
from msgspec import json, structs

from dynemo.engines.guides.judge import open_judge
from dynemo.engines.llama_cpp.adapter import LlamaCpp, _decode_event, _Sequence
from dynemo.engines.llama_cpp.grammar import Grammar, open_grammar
from dynemo.engines.llama_cpp.guide import judge
from dynemo.engines.llama_cpp.params import common_params
from dynemo.errors import EngineError, RequestError, UsageError
from dynemo.messages.answer import Delta, Finish
from dynemo.messages.request import Guide, Request, Sampling
from dynemo.messages.spec import EngineSpec
from dynemo.models.gguf import read_gguf
from support.engine_contract import GREEDY, HOT, ModelContract, Served, count, idle, serving
from support.gguf_files import tiny_model, unpack_vocabulary

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
    tells_ids = True
    score_tolerance = 0.3  # the weights have eight bits

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls, demo: Path) -> EngineSpec:
        # F32 sums in a fixed order: alone or in a batch, the ids are the same.
        options = ["--flash-attn", "off", "--cache-type-k", "f32", "--cache-type-v", "f32"]
        return EngineSpec(
            engine="llama_cpp",
            model=str(demo),
            workdir="",
            model_context=4096,
            kv_bytes_per_token=4096,
            has_keys=True,
            options=[*options, "--threads", "1"],
        )

    @pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema[:60])
    def test_accepted_schemas_are_followed(
        self, served: Served, prompt: list[int], schema: str
    ) -> None:
        request = self.request(prompt, 60, guide=Guide("json_schema", schema), sampling=HOT)
        try:
            texts, finish = served.collect(request)
        except RequestError:
            return
        with closing(served.run(open_grammar(judge("json_schema", schema)))) as grammar:
            grammar.check(Delta(texts=texts, finish=finish))

    def test_an_answer_that_leaves_its_schema_is_an_error(
        self, served: Served, prompt: list[int]
    ) -> None:
        """llguidance gives up at the last colon, where 2,101 rules apply and its limit is 2,000.

        llama.cpp then continues without the schema. The judge tries only the begin of answers.
        """
        choices = [{"const": {f"k{n}": 1}} for n in range(2100)]
        properties = {"long": {"pattern": "^[xy]{70}$", "type": "string"}, "a": {"anyOf": choices}}
        schema = {"type": "object", "properties": properties, "required": ["long", "a"]}
        guide = Guide("json_schema", json.encode(schema).decode())
        with pytest.raises(EngineError, match="stopped following the guide") as caught:
            served.collect(self.request(prompt, 200, guide=guide))
        assert type(caught.value) is EngineError

    @pytest.mark.parametrize("sampling", [GREEDY, HOT], ids=["greedy", "hot"])
    def test_a_schema_that_only_llama_cpp_refuses_is_never_left_out(
        self,
        served: Served,
        prompt: list[int],
        monkeypatch: pytest.MonkeyPatch,
        sampling: Sampling,
    ) -> None:
        """The check simulates a version of llguidance that knows one more format than llama.cpp's.

        llama.cpp itself then answers as if there were no schema.
        """

        async def open_other(text: str) -> Grammar:
            grammar = await open_grammar(text)
            grammar.text = grammar.text.replace("uuid", "unknown")
            return grammar

        monkeypatch.setattr("dynemo.engines.llama_cpp.adapter.open_grammar", open_other)
        path = str(served.child.workdir / "llama.sock")
        guide = Guide("json_schema", '{"type":"string","format":"uuid"}')
        request = self.request(prompt, 20, guide=guide, sampling=sampling)
        # By chance, an answer at high temperature may start as the schema requires.
        words = "does not follow it|stopped following the JSON schema"

        async def body() -> None:
            async with open_judge("dynemo.engines.llama_cpp.guide") as opened:
                engine = LlamaCpp(path, "", xllamacpp.CommonParams(), 4096, 1, opened)
                await count(engine.generate(request))

        with pytest.raises((RequestError, EngineError), match=words) as caught:
            served.run(body())
        assert caught.value.param == "guide" or sampling is HOT

    def test_all_that_it_was_asked_runs_or_waits(self, served: Served, prompt: list[int]) -> None:
        """Some requests wait inside the server, which does not report them."""

        async def body() -> None:
            local, endless = served.local, self.request(prompt * 20, 2000, ignore_eos=True)
            assert local.instance is not None
            assert local._client is not None
            slots = local.instance.slots
            streams = [local.generate(endless) for _ in range(slots + 4)]
            tasks = [asyncio.ensure_future(anext(stream)) for stream in streams]
            try:
                async with asyncio.timeout(15):
                    while (local.load.running, local.load.waiting) != (slots, 4):
                        local._client.ping()
                        await asyncio.sleep(0.02)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                for stream in streams:
                    await stream.aclose()
            await idle(local)

        served.run(body())


def test_a_vocabulary_that_puts_a_space_before_words_follows_schemas_or_fails(
    tmp_path: Path,
) -> None:
    """llguidance does not see the space before a token of such a vocabulary.

    So it accepts the space where the schema does not.
    """
    metadata = read_gguf(unpack_vocabulary("llama-spm", tmp_path)).metadata
    words = {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}
    model = tiny_model(tmp_path / "tiny.gguf", words)
    guide = Guide("json_schema", '{"type":"array","items":{"enum":["so","we"]},"maxItems":1}')
    fitting = failed = 0
    with serving(EngineSpec(engine="llama_cpp", model=str(model), workdir="")) as served:
        for seed in range(20):
            request = Request(
                id="1", prompt="", token_ids=[1, 5, 6], max_tokens=60, guide=guide,
                sampling=structs.replace(HOT, seed=seed),
            )  # fmt: skip
            try:
                texts, finish = served.collect(request)
            except EngineError:
                failed += 1
            else:
                fitting += 1
                assert finish.reason == "length" or json.decode("".join(texts)) in (
                    [], ["so"], ["we"],
                )  # fmt: skip
    assert fitting
    assert failed


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
    # Two more tokens, of a character that never ended.
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


def test_a_worker_with_a_cache_of_all_slots_reuses_nothing_for_salts(demo: Path) -> None:
    spec = EngineSpec(engine="llama_cpp", model=str(demo), workdir="", model_context=4096)

    def request(ids: list[int], salt: str) -> Request:
        return Request(
            id="r", token_ids=ids, prompt="", max_tokens=3, sampling=GREEDY, cache_salt=salt
        )

    prompts = [[1000 + turn * 7 + number for number in range(100)] for turn in range(9)]
    with serving(spec) as served:
        for ids in prompts:  # fills the slots, and the cache
            served.collect(request(ids, ""))
        assert served.collect(request(prompts[0], ""))[1].cached_tokens > 90
        for salt in ("alice", "alice", "bob"):
            assert served.collect(request(prompts[1], salt))[1].cached_tokens == 0
