"""The rest of a request that moves between instances with ids and instances with text."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec import structs

from dynemo.errors import EngineLost
from dynemo.messages.answer import Delta, Finish
from dynemo.messages.request import Guide, Request, Sampling
from dynemo.models.find import Found
from dynemo.models.load import template_and_tokenizer_of
from dynemo.serving.migration import MigrationState, text_codec
from dynemo.tokenizers.base import Tokenizer

REQUEST = Request(
    id="r",
    token_ids=[1530, 40],
    prompt="<|begin_of_text|>I",
    max_tokens=20,
    sampling=Sampling(),
    stop_ids=[1534],
)


@pytest.fixture(scope="module")
def tokenizer(demo: Path) -> Tokenizer:
    return template_and_tokenizer_of(Found("gguf", demo, "demo"))[1]


@pytest.fixture
def progress(tokenizer: Tokenizer) -> MigrationState:
    return MigrationState(REQUEST, text_codec(tokenizer))


def test_nothing_answered_is_the_request_itself(progress: MigrationState) -> None:
    assert progress.rest() is REQUEST


def test_ids_become_text_for_a_text_engine(progress: MigrationState, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(" like capitals", add_special=False, parse_special=False)
    progress.take(Delta(ids))
    progress.begin_anew()
    rest = progress.rest()
    assert (rest.token_ids, rest.continued) == ([1530, 40, *ids], len(ids))
    assert rest.prompt == "<|begin_of_text|>I like capitals"
    assert rest.max_tokens == 20 - len(ids)


def test_text_becomes_ids_for_an_id_engine(progress: MigrationState, tokenizer: Tokenizer) -> None:
    progress.take(Delta(texts=["", " like"]))
    progress.take(Delta(texts=[" capitals"]))
    ids = tokenizer.encode(" like capitals", add_special=False, parse_special=False)
    rest = progress.rest()
    assert (rest.token_ids[2:], rest.prompt[-9:], rest.max_tokens) == (ids, " capitals", 17)


def test_they_take_turns(progress: MigrationState, tokenizer: Tokenizer) -> None:
    like, the = (
        tokenizer.encode(word, add_special=False, parse_special=False) for word in (" like", " the")
    )
    for delta in (Delta(like), Delta(texts=[" the"]), Delta(like)):
        progress.take(delta)
    rest = progress.rest()
    assert rest.token_ids == [1530, 40, *like, *the, *like]
    assert rest.prompt == "<|begin_of_text|>I like the like"
    assert progress.count == 3 == rest.continued


def test_control_tokens_are_spelled_and_half_a_character_is_not(
    progress: MigrationState, tokenizer: Tokenizer
) -> None:
    emoji = tokenizer.encode(" 😀", add_special=False, parse_special=False)
    progress.take(Delta([1532, *emoji, emoji[0]]))
    assert progress.rest().prompt.rstrip() == "<|begin_of_text|>I<|start_header_id|> 😀"


def test_control_tokens_that_a_text_engine_has_spelled_are_these_tokens(
    tokenizer: Tokenizer,
) -> None:
    request = structs.replace(REQUEST, shown={1532: "<|start_header_id|>"})
    progress = MigrationState(request, text_codec(tokenizer))
    progress.take(Delta(texts=["<|start_header_id|>", " like", "<|eot_id|>"]))
    rest = progress.rest()
    written = tokenizer.encode(" like<|eot_id|>", add_special=False, parse_special=False)
    assert rest.token_ids == [1530, 40, 1532, *written]
    assert rest.prompt == "<|begin_of_text|>I<|start_header_id|> like<|eot_id|>"


def test_what_is_told_once_is_not_asked_for_again(tokenizer: Tokenizer) -> None:
    request = structs.replace(REQUEST, logprobs=2, prompt_logprobs=1, min_tokens=3)
    progress = MigrationState(request, text_codec(tokenizer))
    assert progress.rest() is request
    progress.take(Delta([40, 40]))
    rest = progress.rest()
    assert (rest.logprobs, rest.prompt_logprobs, rest.min_tokens) == (2, None, 1)
    progress.take(Delta([40, 40]))
    assert progress.rest().min_tokens == 0


def test_a_stream_that_was_lost_at_a_stop_id_of_the_client(tokenizer: Tokenizer) -> None:
    request = structs.replace(REQUEST, stop_ids=[1534, 40], client_stop_ids=[40])
    progress = MigrationState(request, text_codec(tokenizer))
    progress.take(Delta([40]))
    assert progress.complete() == Finish("stop", 2, 1, matched=40)


def test_a_stream_that_was_lost_at_its_end(progress: MigrationState) -> None:
    assert progress.complete() is None
    progress.take(Delta([40, 1534]))
    assert progress.complete() == Finish("stop", 2, 2)


def test_a_stream_that_was_lost_with_its_budget_spent(progress: MigrationState) -> None:
    progress.take(Delta(texts=["a"] * 20))
    assert progress.complete() == Finish("length", 2, 20)


def test_each_wait_for_the_request_plane_has_its_own_end(progress: MigrationState) -> None:
    async def body() -> None:
        first = progress.away_until(10)
        await asyncio.sleep(0.02)
        assert progress.away_until(10) == first  # it is still away
        progress.plane_is_up()
        second = progress.away_until(10)
        assert second > first
        await asyncio.sleep(0.02)
        progress.search()  # an instance had taken it, and was lost
        assert progress.away_until(10) > second

    asyncio.run(body())


def test_the_guide_of_the_rest_names_what_is_written(
    progress: MigrationState, tokenizer: Tokenizer
) -> None:
    guided = structs.replace(REQUEST, guide=Guide("json_schema", "{}"))
    progress = MigrationState(guided, text_codec(tokenizer))
    assert progress.rest() is guided
    progress.take(Delta(tokenizer.encode('{"é', add_special=False, parse_special=False)))
    progress.begin_anew()
    progress.take(Delta(texts=["", "😀"]))
    assert progress.rest().guide == Guide("json_schema", "{}", '{"é😀')


def test_a_guided_answer_is_passed_on_in_whole_characters(tokenizer: Tokenizer) -> None:
    """A smile is four tokens here. A guide can only begin before it or behind it."""
    smile = tokenizer.encode("😀", add_special=False, parse_special=False)
    assert len(smile) > 1

    async def answer() -> AsyncGenerator[Delta, None]:
        for token_id in [*smile, 40, *smile[:2]]:
            yield Delta([token_id])
        yield Delta([40], finish=Finish("stop", 2, 1))

    async def passed_on(request: Request) -> list[list[int]]:
        progress = MigrationState(request, text_codec(tokenizer))
        counts = []
        async for delta in progress.in_characters(answer()):
            progress.take(delta)
            counts.append(delta.token_ids)
        return counts

    single = [[token_id] for token_id in [*smile, 40, *smile[:2], 40]]
    assert asyncio.run(passed_on(REQUEST)) == single
    guided = structs.replace(REQUEST, guide=Guide("json_schema", "{}"))
    assert asyncio.run(passed_on(guided)) == single
    assert asyncio.run(_passed_on_before_a_loss(guided, tokenizer, smile)) == [40]


async def _passed_on_before_a_loss(
    request: Request, tokenizer: Tokenizer, smile: list[int]
) -> list[int]:
    async def answer() -> AsyncGenerator[Delta, None]:
        for token_id in [40, *smile[:-1]]:
            yield Delta([token_id])
        raise EngineLost("gone")

    progress = MigrationState(request, text_codec(tokenizer))
    ids: list[int] = []
    with suppress(EngineLost):
        async for delta in progress.in_characters(answer()):
            ids += delta.token_ids
    return ids
