"""The contract of all engine adapters, tested through a real engine host.

To test an engine, subclass `EngineContract` with the fixtures `spec` and `prompt`. For an engine
that computes a model, subclass `ModelContract` with a `spec` of the demo model. That fixture needs
the scope of the class, because one host answers all its tests. An engine that takes text overrides
`text`.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from msgspec import json, structs

from dynemo.answer.output import OutputProcessor
from dynemo.environments.registry import ENGINES
from dynemo.errors import DynemoError, RequestError, UnsupportedField
from dynemo.foreign import decode_any_json
from dynemo.messages.answer import Delta, Finish, Piece, PromptPiece, TextPiece
from dynemo.messages.ask import Ask, text_turn
from dynemo.messages.request import Guide, Request, Sampling
from dynemo.messages.spec import EngineSpec
from dynemo.models.find import Found, find_model
from dynemo.models.load import read_model, template_and_tokenizer_of
from dynemo.prompt.card.card import Card
from dynemo.prompt.prepare import prepare
from dynemo.prompt.render import RenderInput, build_prompt
from dynemo.serving.local.child import Child, spawn
from dynemo.serving.local.instance import LocalInstance, local_instance
from dynemo.tokenizers.spelling import spelled_bytes
from support.demo_logits import DemoLogits
from support.guided_moves import cut_answers, is_followed, text_of
from support.guided_schemas import REFUSED, SCHEMAS

GREEDY = Sampling(temperature=0.0)
HOT = Sampling(temperature=50.0)  # all tokens are about equally likely

#: For each field a value other than the neutral value of `prepare`.
SAID: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "min_p": 0.5,
    "seed": 7,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.5,
    "logit_bias": {5: 1.0},
    "ignore_eos": True,
    "stop_ids": [5],
    "min_tokens": 5,
    "logprobs": 2,
    "prompt_logprobs": 1,
}

T = TypeVar("T")

DEMO_LOGITS = cache(DemoLogits)


@asynccontextmanager
async def running(
    spec: EngineSpec, python: str = sys.executable, seconds: float = 15
) -> AsyncIterator[LocalInstance]:
    async with _loaded(spawn(spec, python), seconds) as local:
        yield local


@asynccontextmanager
async def _loaded(child: Child, seconds: float) -> AsyncIterator[LocalInstance]:
    async with local_instance(child, None) as (local, ready):
        async with asyncio.timeout(seconds):
            await ready
        yield local


@dataclass(frozen=True)
class Served:
    """A loaded engine, and a function that runs coroutines in its event loop."""

    child: Child
    local: LocalInstance
    run: Callable[[Awaitable[Any]], Any]
    end: Callable[[], Awaitable[None]]  #: stops the engine permanently, like the end of a run

    def collect(self, request: Request) -> tuple[list[Any], Finish]:
        answer: tuple[list[Any], Finish] = self.run(collect(self.local, request))
        return answer

    @property
    def declared(self) -> set[str]:
        """Returns the names of the sampling fields that the engine declares."""
        assert self.local.instance is not None
        return set(self.local.instance.capabilities.sampling)


@contextmanager
def serving(
    spec: EngineSpec, python: str = sys.executable, seconds: float = 15
) -> Iterator[Served]:
    """Loads an engine for many tests, one after the other. `seconds` limits the load."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def call(work: Awaitable[T]) -> T:
            return await work

        child = spawn(spec, python)
        local = runner.run(stack.enter_async_context(_loaded(child, seconds)))
        try:
            yield Served(child, local, lambda work: runner.run(call(work)), stack.aclose)
        finally:
            runner.run(stack.aclose())


async def collect(local: LocalInstance, request: Request) -> tuple[list[Any], Finish]:
    """Returns the id or the text of each token, and the finish of the last delta."""
    ids: list[Any] = []
    finish: Finish | None = None
    async with aclosing(local.generate(request)) as deltas:
        async for delta in deltas:
            assert finish is None
            ids += delta.token_ids or delta.texts
            finish = delta.finish
    assert finish is not None
    return ids, finish


async def count(stream: AsyncIterator[Delta]) -> int:
    """Counts the token ids of a stream."""
    return sum([len(delta.token_ids) async for delta in stream])


async def idle(local: LocalInstance, seconds: float = 5.0) -> None:
    """Waits until the engine reports no running and no waiting sequence."""
    assert local._client is not None
    for _ in range(int(seconds / 0.02)):
        local._client.ping()
        await asyncio.sleep(0.02)
        if local.load.running == local.load.waiting == 0:
            return
    raise AssertionError(f"still busy: {local.load}")


async def _exhaust(stream: AsyncIterator[Delta]) -> None:
    async for _ in stream:
        pass


class EngineContract:
    ready_seconds = 15.0  #: the limit for the load
    tells_kv_use = False
    follows_guides = True  #: those that the registry names

    @pytest.fixture
    def python(self) -> str:
        """Returns the Python that has the engine."""
        return sys.executable

    @pytest.fixture
    def prompt(self) -> list[int]:
        raise NotImplementedError

    @pytest.fixture
    def served(self, spec: EngineSpec, python: str) -> Iterator[Served]:
        with serving(spec, python, self.ready_seconds) as served:
            yield served

    def text(self, ids: list[int]) -> str:
        """Returns the text of these ids with special tokens, for an engine that takes text."""
        return ""

    def request(self, prompt: list[int], max_tokens: int = 32, **fields: object) -> Request:
        base = Request(
            id="r",
            token_ids=prompt,
            prompt=self.text(prompt),
            max_tokens=max_tokens,
            sampling=GREEDY,
        )
        return structs.replace(base, **fields)

    def test_describes_itself(self, served: Served, spec: EngineSpec) -> None:
        instance = served.local.instance
        assert instance is not None
        assert instance.engine in (spec.engine, Path(spec.argument).name)
        assert instance.version
        assert instance.context_length >= 128
        assert instance.slots >= 1

    def test_agrees_with_the_registry(self, served: Served, spec: EngineSpec) -> None:
        entry, instance = ENGINES.get(spec.engine), served.local.instance
        assert instance is not None
        if entry is not None and not spec.argument:
            said = instance.capabilities
            assert (said.takes, said.gives) == (entry.takes, entry.gives)
            assert said.guides == (list(entry.guides) if self.follows_guides else [])
            assert ("logprobs" in said.sampling) == entry.logprobs

    def test_stops_at_max_tokens_and_reports_usage(self, served: Served, prompt: list[int]) -> None:
        for budget in (1, 2, 3):
            ids, finish = served.collect(self.request(prompt, budget))
            assert len(ids) == budget
            assert (finish.reason, finish.completion_tokens) == ("length", budget)
            assert finish.prompt_tokens == len(prompt)

    def test_streams(self, served: Served, prompt: list[int]) -> None:
        async def body() -> None:
            request = self.request(prompt * 20, 2000, ignore_eos=True)
            async with aclosing(served.local.generate(request)) as deltas:
                first, second = await anext(deltas), await anext(deltas)
            assert len([*first.token_ids, *first.texts, *second.token_ids, *second.texts]) < 1000
            assert first.finish is None

        served.run(body())

    @pytest.fixture
    def prompts(self, prompt: list[int]) -> list[list[int]]:
        """Returns eight prompts for requests at the same time."""
        return [prompt[: len(prompt) - k] for k in range(8)]

    def test_answers_many_at_once_without_mixing_them(
        self, served: Served, prompts: list[list[int]]
    ) -> None:
        async def together() -> list[tuple[list[Any], Finish]]:
            asked = (collect(served.local, self.request(p, 12)) for p in prompts)
            return await asyncio.gather(*asked)

        alone = [served.collect(self.request(p, 12)) for p in prompts]
        assert [ids for ids, _ in served.run(together())] == [ids for ids, _ in alone]

    def test_closing_a_stream_frees_its_sequence(self, served: Served, prompt: list[int]) -> None:
        async def body() -> None:
            endless = self.request(prompt * 20, 2000, ignore_eos=True)
            streams = [served.local.generate(endless) for _ in range(10)]
            for stream in streams:
                pending = asyncio.ensure_future(anext(stream))
                await asyncio.wait([pending], timeout=0.2)
                if not pending.done():
                    pending.cancel()
            await asyncio.gather(*(stream.aclose() for stream in streams))
            await idle(served.local)

        served.run(body())
        ids, _ = served.collect(self.request(prompt, 3))
        assert len(ids) == 3

    def test_reports_its_load(self, served: Served, prompt: list[int]) -> None:
        async def body() -> None:
            local, endless = served.local, self.request(prompt * 20, 2000, ignore_eos=True)
            tasks = [asyncio.create_task(_exhaust(local.generate(endless))) for _ in range(2)]
            assert local._client is not None
            try:
                async with asyncio.timeout(15):
                    while (
                        local.load.running + local.load.waiting < 2
                        or (local.load.kv_use > 0) != self.tells_kv_use
                    ):
                        local._client.ping()
                        await asyncio.sleep(0.02)
                assert 1 <= local.load.running <= 2
                assert 0 <= local.load.kv_use <= 1
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            await idle(local)

        served.run(body())

    def test_refuses_by_name_the_fields_that_it_does_not_honour(self, served: Served) -> None:
        instance = served.local.instance
        assert instance is not None
        assert served.declared <= SAID.keys()
        card = _demo_card()
        asked = [text_turn("user", "Hello")]
        for name, value in SAID.items():
            # A seed without an effect is let through.
            ask = Ask(turns=asked, temperature=0.5 if name == "seed" else None)
            ask = structs.replace(ask, **{name: value})
            if name in served.declared:
                assert prepare(ask, card, [instance], "r").requests
            else:
                with pytest.raises(UnsupportedField, match=name) as caught:
                    prepare(ask, card, [instance], "r")
                assert caught.value.param == name

    @pytest.fixture
    def mortal(self, spec: EngineSpec, python: str) -> Iterator[Served]:
        """Loads an engine for a test that stops it.

        The class of an engine that loads slowly returns `served` instead, and repeats that test as
        its last one.
        """
        with serving(spec, python, self.ready_seconds) as mortal:
            yield mortal

    def test_ends_in_time_and_leaves_no_process(self, mortal: Served, prompt: list[int]) -> None:
        """The engine stops in the middle of an answer."""

        async def body() -> None:
            stream = mortal.local.generate(self.request(prompt * 20, 2000, ignore_eos=True))
            await anext(stream)
            start = time.monotonic()
            await mortal.end()
            assert time.monotonic() - start < 10
            assert mortal.child.process.returncode == 0  # the runner kills a host only after 5 s
            assert not mortal.child.workdir.exists()
            with pytest.raises(DynemoError):
                await _exhaust(stream)

        mortal.run(body())


class ModelContract(EngineContract):
    """The contract of engines that compute a model: the model or the request ends an answer."""

    tells_kv_use = True
    tells_ids = False  #: its finish has the client's stop id; else the last delta has it
    scores_follow_temperature = False
    score_tolerance = 0.02  #: in nats, of a log probability above -5
    each_schema = 1  #: of the 120; 6: every sixth
    hot = HOT  #: a sampling as random as the engine allows: each answer is different

    @pytest.fixture(scope="class")
    @classmethod
    def python(cls) -> str:
        return sys.executable

    @pytest.fixture(scope="class")
    @classmethod
    def served(cls, spec: EngineSpec, python: str) -> Iterator[Served]:
        with serving(spec, python, cls.ready_seconds) as served:
            yield served

    @pytest.fixture(autouse=True)
    def speak(self, demo: Path) -> None:
        """Loads the demo model's template and tokenizer. All its formats have the same ones."""
        self.template, self.tokenizer = template_and_tokenizer_of(Found("gguf", demo, "demo"))

    @pytest.fixture
    def prompt(self) -> list[int]:
        chat = RenderInput([text_turn("user", "What is the capital of Peru?")])
        return build_prompt(self.template, self.tokenizer, chat).token_ids

    @pytest.fixture
    def eos(self) -> int:
        """Returns the id that ends the answer to `prompt`."""
        token_id = self.tokenizer.token_id("<|eot_id|>")
        assert token_id is not None
        return token_id

    @pytest.fixture
    def own(self) -> int:
        """Returns the id of the third token of the answer to `prompt`."""
        ids = self.tokenizer.encode("The capital of", add_special=False, parse_special=False)
        assert len(ids) == 3
        return ids[2]

    def test_stops_at_eos_and_counts_it(self, served: Served, prompt: list[int], eos: int) -> None:
        tokens, finish = served.collect(self.request(prompt, 200, stop_ids=[eos]))
        assert finish.reason == "stop"
        assert finish.completion_tokens == len(tokens)
        assert tokens[-1] in (eos, "")
        assert eos not in tokens[:-1]

    def test_stops_at_an_id_of_the_request_s_own(
        self, served: Served, prompt: list[int], own: int
    ) -> None:
        tokens, finish = served.collect(self.request(prompt, 9, stop_ids=[own]))
        assert (len(tokens), finish.reason, finish.completion_tokens) == (3, "stop", 3)
        assert tokens[-1] in (own, "")

    def test_control_tokens_are_text_if_the_request_shows_them(
        self, served: Served, prompt: list[int], eos: int
    ) -> None:
        def said(shown: dict[int, str], **fields: Any) -> str:
            request = self.request(prompt, 200, shown=shown, **fields)
            return "".join(served.run(self.pieces_of(served.local, request)))

        name, end = "<|start_header_id|>", self.tokenizer.token_text(eos)
        control = self.tokenizer.token_id(name)
        assert control is not None
        assert end is not None
        answer = said({}, stop_ids=[eos])
        assert answer
        assert said({control: name}, stop_ids=[eos]) == answer
        assert said({eos: end}, stop_ids=[eos]) == answer + end
        assert "<|" not in said({}, ignore_eos=True)
        if "logit_bias" in served.declared:
            forced = structs.replace(GREEDY, logit_bias={control: 100.0})
            assert said({}, sampling=forced) == ""
            assert said({control: name}, sampling=forced) == 200 * name

    async def pieces_of(self, local: LocalInstance, request: Request) -> list[str]:
        """Returns the texts of an answer, as a client gets them."""
        output = OutputProcessor(0, request, self.tokenizer, None)
        texts: list[str] = []
        async with aclosing(local.generate(request)) as deltas:
            async for delta in deltas:
                pieces = output.feed(delta)
                texts += [piece.text for piece in pieces if isinstance(piece, TextPiece)]
        return texts

    def test_reports_cached_tokens(self, served: Served, prompt: list[int], eos: int) -> None:
        request = self.request(prompt, 200, stop_ids=[eos])
        served.collect(request)
        _, finish = served.collect(request)
        assert 0 < finish.cached_tokens <= len(prompt)

    def test_salts_share_no_cache(
        self, served: Served, prompt: list[int], spec: EngineSpec
    ) -> None:
        if ENGINES[spec.engine].prefix_cache != "per key":
            pytest.skip("its prefix cache has no salt")
        turned = (prompt[2:] + prompt[:2]) * 10  # new to the cache
        cached = [
            served.collect(self.request(turned, 3, cache_salt=salt))[1].cached_tokens
            for salt in ("alice", "alice", "bob", "bob", "")
        ]
        assert [bool(count) for count in cached] == [False, True, False, True, False], cached

    def test_honours_each_sampling_field_that_it_declares(
        self, served: Served, prompt: list[int], own: int, eos: int
    ) -> None:
        def ask(base: Sampling, max_tokens: int = 12, **said: Any) -> list[Any]:
            stop_ids = [] if said.pop("ignore_eos", False) else [eos]
            request = self.request(
                prompt,
                max_tokens,
                min_tokens=said.pop("min_tokens", 0),
                sampling=structs.replace(base, **said),
                stop_ids=stop_ids,
                ignore_eos=not stop_ids,
            )
            tokens, _ = served.collect(request)
            return tokens

        sure = ask(structs.replace(self.hot, temperature=0.0))
        endless = ask(GREEDY, 100, ignore_eos=True) if "ignore_eos" in served.declared else []

        def penalised(**said: float) -> bool:
            """Beyond its end an answer repeats itself, unless a penalty prevents that."""
            return ask(GREEDY, 100, ignore_eos=True, **said) != endless

        checks: dict[str, Callable[[], bool]] = {
            "temperature": lambda: ask(self.hot) != sure,
            "top_p": lambda: ask(self.hot, top_p=1e-6) == sure,
            "top_k": lambda: ask(self.hot, top_k=1) == sure,
            "min_p": lambda: ask(self.hot, min_p=1.0) == sure,
            "seed": lambda: ask(self.hot, seed=3) == ask(self.hot, seed=3) != ask(self.hot, seed=4),
            "presence_penalty": lambda: penalised(presence_penalty=2.0),
            "frequency_penalty": lambda: penalised(frequency_penalty=2.0),
            "repetition_penalty": lambda: penalised(repetition_penalty=2.0),
            "logit_bias": lambda: len(set(ask(GREEDY, 4, logit_bias={own: 100.0}))) == 1,
            "ignore_eos": lambda: len(endless) == 100,
            "min_tokens": lambda: len(ask(GREEDY, 40, min_tokens=30)) >= 30 > len(sure),
        }
        others = {"stop_ids", "logprobs", "prompt_logprobs"}  # they have tests of their own
        assert [name for name in sorted(served.declared - others) if not checks[name]()] == []

    def test_tells_which_stop_id_of_the_client_has_ended_it(
        self, served: Served, prompt: list[int], own: int, eos: int
    ) -> None:
        def ended(stop_ids: list[int], clients: list[int], **fields: Any) -> tuple[Any, int]:
            request = self.request(
                prompt, 100, stop_ids=stop_ids, client_stop_ids=clients, **fields
            )
            _, finish = served.collect(request)
            assert finish.reason == "stop"
            return finish.matched, finish.completion_tokens

        met = own if self.tells_ids else None
        assert ended([eos, own], [own]) == (met, 3)
        assert ended([own, eos], [eos])[1] == 3
        assert ended([own], [own], ignore_eos=True) == (met, 3)
        matched, count = ended([eos], [eos])
        assert (matched, count > 3) == (eos if self.tells_ids else None, True)
        matched, _ = ended([eos], [])
        assert matched is None

    def scored(self, served: Served, request: Request) -> list[Piece]:
        """Returns the pieces of an answer."""

        async def body() -> list[Piece]:
            output = OutputProcessor(0, request, self.tokenizer, None)
            pieces: list[Piece] = []
            async with aclosing(served.local.generate(request)) as deltas:
                async for delta in deltas:
                    pieces += output.feed(delta)
            return pieces

        pieces: list[Piece] = served.run(body())
        return pieces

    def log_probabilities(self, ids: list[int], temperature: float) -> Any:
        """Returns what an engine should tell after `ids`, by token id."""
        found = DEMO_LOGITS().log_probabilities(ids)
        if not self.scores_follow_temperature:
            return found
        found = found / temperature
        return found - np.log(np.exp(found).sum())

    @pytest.mark.parametrize("temperature", [0.0, 1.5])
    def test_log_probabilities_are_those_of_the_model(
        self, served: Served, prompt: list[int], temperature: float
    ) -> None:
        if "logprobs" not in served.declared:
            pytest.skip("it has no log probabilities")
        vocabulary = {spelled_bytes(self.tokenizer, i): i for i in range(self.tokenizer.vocab_size)}
        for likeliest in (0, 3, 20):
            request = self.request(
                prompt, 9, logprobs=likeliest, sampling=Sampling(temperature=temperature)
            )
            texts = [each for each in self.scored(served, request) if isinstance(each, TextPiece)]
            entries = [entry for piece in texts for entry in piece.logprobs]
            assert entries
            assert "".join(entry.text for entry in entries) == "".join(each.text for each in texts)
            ids = list(prompt)
            for entry in entries:
                wanted = self.log_probabilities(ids, temperature or 1.0)
                token_id = vocabulary[entry.bytes]
                ids.append(token_id)
                self.compare({token_id: entry.logprob}, wanted)
                assert len(entry.top) == likeliest
                assert all(
                    each.bytes == spelled_bytes(self.tokenizer, each.id) for each in entry.top
                )
                self.compare({each.id: each.logprob for each in entry.top}, wanted)
                values = [each.logprob for each in entry.top]
                assert values == sorted(values, reverse=True)

    def compare(self, found: dict[int, float], wanted: Any) -> None:
        for token_id, value in found.items():
            tolerance = self.score_tolerance * max(1.0, -float(wanted[token_id]) / 5)
            assert value == pytest.approx(float(wanted[token_id]), abs=tolerance)

    def test_log_probabilities_of_the_prompt(self, served: Served, prompt: list[int]) -> None:
        if "prompt_logprobs" not in served.declared:
            pytest.skip("it has no log probabilities of the prompt")
        for logprobs in (None, 1):
            request = self.request(prompt, 3, prompt_logprobs=2, logprobs=logprobs)
            [found] = [
                each for each in self.scored(served, request) if isinstance(each, PromptPiece)
            ]
            assert len(found.logprobs) == len(prompt)
            assert found.logprobs[0] is None
            for at, entry in enumerate(found.logprobs[1:], 1):
                assert entry is not None
                assert entry.id == prompt[at]
                wanted = self.log_probabilities(prompt[:at], 1.0)
                self.compare({entry.id: entry.logprob}, wanted)
                self.compare({each.id: each.logprob for each in entry.top}, wanted)
                assert len(entry.top) == 2

    def test_answers_without_a_seed_differ(self, served: Served, prompt: list[int]) -> None:
        """The choices of one request need this."""
        request = self.request(prompt, 12, sampling=self.hot, ignore_eos=True)
        assert served.collect(request)[0] != served.collect(request)[0]

    def test_follows_each_guide_that_it_declares(self, served: Served, prompt: list[int]) -> None:
        instance = served.local.instance
        assert instance is not None
        wanted = {
            "json_schema": Guide(
                "json_schema", '{"type":"object","properties":{"n":{"enum":[7]}}}'
            ),
            "grammar": Guide("grammar", 'root ::= "{" [n] "}"'),
            "regex": Guide("regex", r"\{[a-c]{2}/?\}"),
            "choice": Guide("choice", '["{one}","{two}"]'),
            "lark": Guide("lark", 'start: "{" /[0-9]{1,3}/ "}"'),
            "structural_tag": Guide(
                "structural_tag",
                '{"structures":[{"begin":"{","schema":{},"end":"}"}],"triggers":["{"]}',
            ),
        }
        endless = '{"items":{"type":"array","minItems":1000000000}}'  # it would take all memory
        wrong = {
            "json_schema": [
                Guide("json_schema", '{"type":"objekt"}'),
                Guide("json_schema", endless),
            ],
            "grammar": [Guide("grammar", "root :="), Guide("grammar", "%llguidance {}\nstart: (")],
            "regex": [Guide("regex", "[z-a]"), Guide("regex", "(a{1000}){1000}")],
            "choice": [Guide("choice", "[]"), Guide("choice", "[1]")],
            "lark": [Guide("lark", "start: ("), Guide("lark", "start: start")],
            "structural_tag": [Guide("structural_tag", "{}")],
        }
        for kind in instance.capabilities.guides:
            tokens, finish = served.collect(self.request(prompt, 100, guide=wanted[kind]))
            assert finish.reason == "stop"
            if instance.capabilities.gives == "text":
                assert "".join(tokens).startswith("{")
                assert "".join(tokens).endswith("}")
            for guide in wrong[kind]:
                with pytest.raises(RequestError) as caught:
                    served.collect(self.request(prompt, 100, guide=guide))
                assert caught.value.param == "guide"

    def test_each_finished_json_answer_fits_its_schema(
        self, served: Served, prompt: list[int]
    ) -> None:
        """A schema that cannot be followed is refused before the first token."""
        instance = served.local.instance
        assert instance is not None
        if "json_schema" not in instance.capabilities.guides:
            pytest.skip("it follows no schemas")
        finished, refused = 0, set()
        for name in list(SCHEMAS)[:: self.each_schema]:
            guide = Guide("json_schema", json.encode(SCHEMAS[name]).decode())
            try:
                tokens, finish = served.collect(
                    self.request(prompt, 150, guide=guide, sampling=self.hot)
                )
            except RequestError as error:
                assert "cannot be followed" in str(error)  # noqa: PT017
                refused.add(name)
                continue
            if finish.reason == "stop":
                finished += 1
                # Numbers of any size are JSON.
                value = decode_any_json(text_of(self.tokenizer, tokens))
                Draft202012Validator(SCHEMAS[name]).validate(value)
        assert refused <= REFUSED, refused - REFUSED
        assert finished > 80 / self.each_schema

    def test_continues_a_guided_answer_from_each_of_its_tokens(
        self, served: Served, prompt: list[int]
    ) -> None:
        instance = served.local.instance
        assert instance is not None
        request = self.request(prompt, 100)
        request = structs.replace(request, stop_ids=[self.tokenizer.token_id("<|eot_id|>") or 0])
        for kind in instance.capabilities.continues:
            collect = served.collect
            answers = list(cut_answers(request, kind, collect, collect, self.tokenizer))
            assert len(answers) > 2
            for whole, moved in answers:
                assert is_followed(kind, whole)
                assert is_followed(kind, moved), moved

    def test_a_stream_that_is_closed_is_computed_no_further(
        self, served: Served, prompt: list[int]
    ) -> None:
        """The whole answer would take 20 times as long as its beginning."""

        async def body() -> tuple[float, float]:
            began = time.monotonic()
            request = self.request(prompt, 2100, ignore_eos=True)
            async with aclosing(served.local.generate(request)) as deltas:
                count = 0
                async for delta in deltas:
                    count += len(delta.token_ids or delta.texts)
                    if count >= 100:
                        break
            closed = time.monotonic()
            await idle(served.local)
            return closed - began, time.monotonic() - closed

        beginning, after = served.run(body())
        assert after < max(beginning * 5, 0.5)

    def test_a_bad_request_beside_a_good_one(
        self, served: Served, prompt: list[int], eos: int
    ) -> None:
        good = self.request(prompt, 40, stop_ids=[eos])

        async def both(bad: Request) -> list[Any]:
            asked = (collect(served.local, each) for each in (good, bad, good))
            return list(await asyncio.gather(*asked, return_exceptions=True))

        alone = served.collect(good)[0]
        for bad in self.bad_requests(served, prompt):
            first, error, last = served.run(both(bad))
            assert isinstance(error, DynemoError)
            assert str(error)
            assert first[0] == last[0] == alone
        assert served.collect(good)[0] == alone

    def bad_requests(self, served: Served, prompt: list[int]) -> list[Request]:
        """Returns requests that `prepare` refuses: a prompt that does not fit, an unknown id."""
        instance = served.local.instance
        assert instance is not None
        long = prompt * (instance.context_length // len(prompt) + 2)
        bad = [self.request(long, 4)]
        if instance.capabilities.takes == "tokens":
            bad.append(self.request([*prompt, 1_000_000], 4))
        return bad


def _demo_card() -> Card:
    found = find_model(None, needs="gguf", engine="")
    return read_model(found, None, None).card()
