"""Instances with different capabilities behind one model name."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from threading import Event, Thread, Timer
from typing import Any, cast

import pytest

from dynemo.errors import (
    ContextLengthExceeded,
    EngineLost,
    GuideNotContinued,
    RequestError,
    Unavailable,
    UnsupportedField,
)
from dynemo.messages.answer import (
    Delta,
    EmbeddingPiece,
    Finish,
    Piece,
    PromptPiece,
    Scores,
    TextPiece,
)
from dynemo.messages.ask import Ask, text_turn
from dynemo.messages.records import Capabilities, InstanceRecord, Load
from dynemo.messages.request import Guide, Request, Sampling
from dynemo.messages.scores import pack_score
from dynemo.prompt.card.card import Card
from dynemo.prompt.template import ChatTemplate
from dynemo.router.router import make_router
from dynemo.serving.migration import TextCodec
from dynemo.serving.pipeline import Job, Pipeline
from dynemo.serving.pool import Pool
from dynemo.serving.served import ServedModel
from support.byte_tokenizer import Bytes
from support.records import make_instance, make_record

TEMPLATE = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")
CARD = Card("m", "llama", Bytes(), TEMPLATE, (7,), 100)
GUIDE = Guide("json_schema", "{}")


class Remote:
    """An instance that records its requests, and may break after some tokens."""

    is_doubtful = False
    state = "ready"
    load = Load()

    def __init__(self, name: str, context: int, *, breaks_after: int = 0, **can: Any) -> None:
        can_do = Capabilities(**can)
        self.record = make_record(
            make_instance(name, engine=name, context_length=context, slots=2, capabilities=can_do)
        )
        self.asked: list[Request] = []
        self._breaks_after = breaks_after

    async def generate(
        self, request: Request, cancel_reader: Any = None
    ) -> AsyncGenerator[Delta, None]:
        self.asked.append(request)
        if self._breaks_after:
            yield Delta([1] * self._breaks_after, scores=self._scores(request, self._breaks_after))
            raise EngineLost("gone")
        finish = Finish("length", len(request.token_ids), 1)
        yield Delta([1], finish=finish, embedding=b"1234", scores=self._scores(request, 1))

    def _scores(self, request: Request, count: int) -> Scores | None:
        """Returns scores that tell how many tokens came before."""
        if request.logprobs is None:
            return None
        first = len(request.token_ids)
        prompt = [b"", pack_score(2, -9.0)] if request.prompt_logprobs is not None else []
        return Scores([pack_score(1, -float(first + at)) for at in range(count)], prompt)


def filled(*remotes: Any) -> Pool:
    pool = Pool(make_router("round-robin"), TextCodec(lambda _: [], lambda _: ""), 3)
    for remote in remotes:
        pool.add(remote)
    return pool


def pool_of(*remotes: Any) -> Pipeline:
    pool = filled(*remotes)
    return Pipeline({"m": ServedModel("m", 0, CARD, pool)}, defaults=Ask())


def answer(pipeline: Pipeline, text: str = "hello", **fields: Any) -> None:
    async def body() -> None:
        job = pipeline.prepare(Ask(turns=[text_turn("user", text)], **fields))
        async with aclosing(pipeline.run(job)) as pieces:
            async for _ in pieces:
                pass

    asyncio.run(body())


def vectors(pipeline: Pipeline, job: Job) -> list[bytes]:
    async def body() -> list[bytes]:
        found = [b""] * job.choices
        async with aclosing(pipeline.run(job)) as batches:
            async for pieces in batches:
                for piece in pieces:
                    if isinstance(piece, EmbeddingPiece):
                        found[piece.index] = piece.vector
        return found

    return asyncio.run(body())


def test_a_chat_does_not_go_to_an_embedder_with_more_context() -> None:
    chat, embedder = Remote("chat", 20), Remote("embedder", 80, tasks=("embed",))
    pipeline = pool_of(embedder, chat)
    for _ in range(3):
        answer(pipeline)
    assert [request.max_tokens for request in chat.asked] == [15, 15, 15]
    assert embedder.asked == []
    with pytest.raises(ContextLengthExceeded, match="20 tokens"):
        answer(pipeline, "x" * 30)


def test_an_embedding_goes_to_an_embedder_and_may_fill_its_context() -> None:
    chat, embedder = Remote("chat", 80), Remote("embedder", 20, tasks=("embed",))
    pipeline = pool_of(chat, embedder)
    job = pipeline.prepare(Ask(task="embed", prompts=["x" * 20, "y"]))
    assert vectors(pipeline, job) == [b"1234"] * 2
    assert len(embedder.asked) == 2
    assert job.prepared.at_once == 2
    with pytest.raises(ContextLengthExceeded, match=r"21 tokens.* 20"):
        pipeline.prepare(Ask(task="embed", prompts=["x" * 21]))


def test_a_schema_goes_to_an_instance_that_follows_it_and_has_its_context() -> None:
    guided, large = Remote("guided", 20, guides=["json_schema"]), Remote("large", 80)
    pipeline = pool_of(large, guided)
    for _ in range(3):
        answer(pipeline, guide=GUIDE)
    assert [request.max_tokens for request in guided.asked] == [15, 15, 15]
    assert large.asked == []


def test_control_tokens_go_to_an_instance_that_spells_them() -> None:
    """A worker of an older release that gives text leaves them out."""
    old, new = Remote("old", 80, gives="text"), Remote("new", 20, gives="text", shows_control=True)
    ids = Remote("ids", 20)
    request = Request(
        id="r", token_ids=[1], prompt="", max_tokens=1, sampling=Sampling(), shown={9: "<call>"}
    )

    async def body() -> None:
        pool = filled(old, new, ids)
        for _ in range(4):
            async with aclosing(pool.generate(request)) as deltas:
                async for _ in deltas:
                    pass

    asyncio.run(body())
    assert (len(old.asked), len(new.asked), len(ids.asked)) == (0, 2, 2)


def test_the_rest_of_a_guided_answer_goes_to_an_instance_that_continues_guides() -> None:
    kinds: dict[str, Any] = {"guides": ["json_schema"], "continues": ["json_schema"]}
    first = Remote("first", 40, breaks_after=3, **kinds)
    other = Remote("other", 40, guides=["json_schema"])
    able = Remote("able", 40, **kinds)
    pool = Pool(make_router("round-robin"), TextCodec(lambda _: [], lambda ids: "x" * len(ids)), 3)
    for remote in (first, other, able):
        pool.add(remote)  # type: ignore[arg-type]
    pipeline = Pipeline({"m": ServedModel("m", 0, CARD, pool)}, defaults=Ask())
    for _ in range(3):
        answer(pipeline, guide=GUIDE)
    moved = [request.guide for request in able.asked if request.guide and request.guide.written]
    assert moved
    assert moved[0] == Guide("json_schema", "{}", "xxx")
    assert {request.guide.written for request in other.asked if request.guide} <= {""}


def test_a_grammar_does_not_move_within_an_answer() -> None:
    lark = Guide("lark", 'start: "a"')
    can: dict[str, Any] = {"guides": ["lark"], "continues": ["lark"]}
    pipeline = pool_of(
        Remote("a", 40, breaks_after=3, **can), Remote("b", 40, breaks_after=3, **can)
    )
    with pytest.raises(GuideNotContinued, match="cannot be advanced past what was written"):
        answer(pipeline, guide=lark)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("logprobs", {"logprobs": 0}),
        ("prompt_logprobs", {"prompt_logprobs": 0}),
        ("min_tokens", {"min_tokens": 1}),
        ("stop_ids", {"stop_ids": [5], "client_stop_ids": [5]}),
    ],
)
def test_a_worker_of_an_older_release_gets_no_field_that_it_does_not_know(
    name: str, fields: dict[str, Any]
) -> None:
    old, new = Remote("old", 80), Remote("new", 20, sampling=[name])
    request = Request(id="r", token_ids=[1], prompt="", max_tokens=1, sampling=Sampling(), **fields)

    async def body() -> None:
        pool = filled(old, new)
        for _ in range(3):
            async with aclosing(pool.generate(request)) as deltas:
                async for _ in deltas:
                    pass

    asyncio.run(body())
    assert (len(old.asked), len(new.asked)) == (0, 3)


def test_an_answer_that_moves_keeps_its_log_probabilities() -> None:
    can = ["logprobs", "prompt_logprobs"]
    first = Remote("first", 80, breaks_after=3, sampling=can)
    pipeline = pool_of(first, Remote("second", 80, sampling=can))
    pieces: list[Piece] = []

    async def body() -> None:
        turns = [text_turn("user", "ab")]
        for _ in range(2):  # one of them begins at the instance that breaks
            job = pipeline.prepare(Ask(turns=turns, logprobs=0, prompt_logprobs=0, max_tokens=4))
            pieces.clear()
            async with aclosing(pipeline.run(job)) as batches:
                async for batch in batches:
                    pieces.extend(batch)
            if first.asked:
                return

    asyncio.run(body())
    texts = [piece for piece in pieces if isinstance(piece, TextPiece)]
    values = [entry.logprob for piece in texts for entry in piece.logprobs]
    assert "".join(piece.text for piece in texts) == 4 * "\x01"
    assert values == [-2.0, -3.0, -4.0, -5.0]
    assert sum(isinstance(piece, PromptPiece) for piece in pieces) == 1


def test_fields_that_only_different_ones_have_are_refused_by_name() -> None:
    cold = Remote("cold", 20, sampling=["temperature"])
    pipeline = pool_of(cold, Remote("guided", 20, guides=["json_schema"]))
    with pytest.raises(
        UnsupportedField, match="The engine cold cannot restrict its answer"
    ) as caught:
        answer(pipeline, temperature=0.5, guide=GUIDE)
    assert caught.value.param == "guide"
    with pytest.raises(UnsupportedField, match="cold or guided does not support 'top_k'"):
        answer(pipeline, top_k=3)
    with pytest.raises(RequestError, match="has no embeddings"):
        pipeline.prepare(Ask(task="embed", prompts=["x"]))


def test_an_answer_without_a_bound_goes_to_small_contexts_too_and_fills_each() -> None:
    small, large = Remote("small", 20), Remote("large", 80)
    pipeline = pool_of(small, large)
    for _ in range(4):
        answer(pipeline)
    assert [request.max_tokens for request in small.asked] == [15, 15]
    assert [request.max_tokens for request in large.asked] == [75, 75]
    for _ in range(2):
        answer(pipeline, max_tokens=30)  # only the large context has room for it
    assert [request.max_tokens for request in large.asked[2:]] == [30, 30]


def test_an_answer_moves_to_where_its_rest_has_room() -> None:
    broken = Remote("broken", 80, breaks_after=20)
    small, large = Remote("small", 20), Remote("large", 70)
    for _ in range(3):
        answer(pool_of(broken, small, large))
    assert broken.asked
    assert all(not request.continued for request in small.asked)
    moved = [request for request in large.asked if request.continued]
    assert moved
    assert all(len(r.token_ids) + r.max_tokens == 70 for r in moved)


def test_an_instance_without_room_gets_no_request_even_if_all_are_alike() -> None:
    """The instance that the request was prepared for may go before it gets the request."""
    large, small = Remote("large", 80), Remote("small", 20)
    pool = filled(large)
    pipeline = Pipeline({"m": ServedModel("m", 0, CARD, pool)}, defaults=Ask())

    async def body() -> None:
        job = pipeline.prepare(Ask(turns=[text_turn("user", "x" * 30)]))
        pool.remove("large")
        pool.add(cast(Any, small))
        async with aclosing(pipeline.run(job)) as pieces:
            async for _ in pieces:
                pass

    with pytest.raises(Unavailable):
        asyncio.run(body())
    assert small.asked == []


class Counted:
    """Counts how often an attribute is read."""

    is_doubtful = False
    state = "ready"
    looks = 0

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def __getattr__(self, name: str) -> Any:
        Counted.looks += 1
        return getattr(self._remote, name)


def test_a_choice_among_kinds_does_not_look_at_every_instance() -> None:
    remotes = [Remote(f"{n}", 80 if n % 2 else 20) for n in range(200)]
    pipeline = pool_of(*map(Counted, remotes))
    answer(pipeline, max_tokens=30)
    before = Counted.looks
    for _ in range(20):
        answer(pipeline, max_tokens=30)
    assert Counted.looks - before < 20 * 10
    assert all(not remote.asked for remote in remotes[::2])


class Blocking:
    """An instance. After `hold`, the first read of its record waits until `may_go` is set."""

    def __init__(self, remote: Remote) -> None:
        self.is_read, self.may_go = Event(), Event()
        self._record = remote.record
        self._holds = False

    def hold(self) -> None:
        self._holds = True

    @property
    def record(self) -> InstanceRecord:
        if self._holds:
            self._holds = False
            self.is_read.set()
            assert self.may_go.wait(10)
        return self._record


def test_a_thread_that_reads_the_classes_keeps_an_instance_that_appears() -> None:
    """A long prompt is prepared in a thread, which reads the classes of the instances."""
    held = Blocking(Remote("small", 20))
    pool: Any = filled(held)
    held.hold()
    thread = Thread(target=lambda: pool.instance_classes)
    thread.start()
    assert held.is_read.wait(10)
    pool.add(Remote("large", 80))
    Timer(0.1, held.may_go.set).start()
    assert len(pool.instance_classes) == 2
    thread.join()
    assert len(pool.instance_classes) == 2
