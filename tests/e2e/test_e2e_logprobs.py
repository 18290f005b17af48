"""Log probabilities and stop ids over HTTP, with the engines that can run everywhere."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from dynemo.models.find import Found, demo_gguf
from dynemo.models.load import template_and_tokenizer_of
from support.command import serving

QUESTION: Any = [{"role": "user", "content": "What is the capital of South Africa?"}]
ANSWER = "The capital of South Africa is Pretoria."
EMOJI: Any = [{"role": "user", "content": "Repeat after me: naïve café 😀"}]


@pytest.fixture(scope="module", params=["llama_cpp", "mistralrs"])
def client(request: pytest.FixtureRequest) -> Iterator[OpenAI]:
    with (
        serving(f"out={request.param}") as server,
        OpenAI(base_url=server.api, api_key="none", max_retries=0) as made,
    ):
        yield made


def ask(client: OpenAI, messages: Any = QUESTION, **fields: Any) -> Any:
    fields = {"logprobs": True, "top_logprobs": 2, "temperature": 0, **fields}
    return client.chat.completions.create(model="demo", messages=messages, **fields)


def joined(content: Any) -> str:
    text = "".join(entry.token for entry in content)
    assert b"".join(bytes(entry.bytes) for entry in content).decode() == text
    return text


@pytest.mark.parametrize("messages", [QUESTION, EMOJI])
@pytest.mark.parametrize("stop", [None, "ital", ["f So"], ["\N{GRINNING FACE}"]])
def test_the_tokens_are_the_content(client: OpenAI, messages: Any, stop: Any) -> None:
    whole = ask(client, messages, stop=stop).choices[0]
    assert joined(whole.logprobs.content) == whole.message.content
    for entry in whole.logprobs.content:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 2
    content: list[Any] = []
    text = ""
    with ask(client, messages, stop=stop, stream=True) as chunks:
        for chunk in chunks:
            choice = chunk.choices[0]
            said = choice.delta.content or ""
            text += said
            found = choice.logprobs.content if choice.logprobs else []
            assert joined(found) == said
            content += found
    assert text == whole.message.content
    assert [entry.bytes for entry in content] == [e.bytes for e in whole.logprobs.content]


def test_each_choice_has_its_own(client: OpenAI) -> None:
    answer = ask(client, n=3, temperature=1.5, top_logprobs=0)
    for choice in answer.choices:
        assert joined(choice.logprobs.content) == choice.message.content
        assert all(entry.top_logprobs == [] for entry in choice.logprobs.content)


def test_nothing_is_told_that_nobody_asked_for(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=QUESTION)
    assert answer.choices[0].logprobs is None
    assert answer.choices[0].message.content == ANSWER


def test_the_stop_that_was_met(client: OpenAI) -> None:
    _, tokenizer = template_and_tokenizer_of(Found("gguf", demo_gguf(), "demo"))
    of, eot = tokenizer.encode(" of", add_special=False, parse_special=False), "<|eot_id|>"
    assert len(of) == 1

    def ended(**extra: Any) -> tuple[str, Any]:
        [choice] = client.chat.completions.create(
            model="demo", messages=QUESTION, extra_body=extra
        ).choices
        assert choice.finish_reason == "stop"
        return choice.message.content or "", choice.stop_reason  # type: ignore[attr-defined]

    assert ended() == (ANSWER, None)
    assert ended(stop_token_ids=of) == ("The capital", of[0])
    assert ended(stop_token_ids=of, ignore_eos=True) == ("The capital", of[0])
    both: dict[str, Any] = {"stop_token_ids": of, "include_stop_str_in_output": True}
    assert ended(**both) == ("The capital of", of[0])
    assert ended(stop=["ital"]) == ("The cap", "ital")
    assert ended(stop=["ital"], include_stop_str_in_output=True) == ("The capital", "ital")
    assert ended(stop_token_ids=[tokenizer.token_id(eot)]) == (ANSWER, tokenizer.token_id(eot))


def test_a_seed_without_effect(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="demo", messages=QUESTION, seed=1234, temperature=0
    )
    assert answer.choices[0].message.content == ANSWER


@pytest.mark.parametrize("field", ["min_tokens", "prompt_logprobs"])
def test_fields_that_the_engine_does_not_have(client: OpenAI, field: str) -> None:
    with pytest.raises(openai.BadRequestError, match=f"does not support '{field}'") as caught:
        ask(client, extra_body={field: 2})
    assert caught.value.param == field


def test_ids_that_the_model_does_not_have(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="names the token 9999999") as caught:
        ask(client, extra_body={"stop_token_ids": [9_999_999]})
    assert caught.value.param == "stop_token_ids"


def test_usage_in_every_chunk(client: OpenAI) -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    with ask(client, stream=True, stream_options=options) as chunks:
        usages = [chunk.usage for chunk in chunks]
    counts = [usage.completion_tokens for usage in usages]
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] == counts[-2] > 5
    assert len({usage.prompt_tokens for usage in usages}) == 1
