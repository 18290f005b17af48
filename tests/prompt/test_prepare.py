from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from dynemo.errors import ContextLengthExceeded, RequestError, UnsupportedField
from dynemo.messages.ask import Ask, merged, text_turn
from dynemo.messages.records import Capabilities, Instance
from dynemo.messages.request import JOINER, Guide
from dynemo.prompt.card.card import Card
from dynemo.prompt.prepare import prepare
from dynemo.prompt.template import ChatTemplate
from dynemo.tokenizers.hf.tokenizer import HfTokenizer
from support.byte_tokenizer import Bytes
from support.fidelity_data import FOLDER

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{{ '>' if add_generation_prompt }}"
CARD = Card("m", "llama", Bytes(), ChatTemplate(TEMPLATE), (7, 8), 100)
INSTANCE = Instance(
    id="i",
    engine="llama_cpp",
    version="1",
    device="cpu",
    context_length=20,
    slots=1,
    capabilities=Capabilities(sampling=["temperature", "seed", "logit_bias", "ignore_eos"]),
)


def _ask(content: str = "hello", **fields: Any) -> Ask:
    return Ask(turns=[text_turn("user", content)], **fields)


def test_the_prompt_its_ids_and_the_eos_ids_reach_the_engine() -> None:
    [request] = prepare(_ask(), CARD, [INSTANCE], "r").requests
    assert request.prompt == "hello>"
    assert bytes(request.token_ids) == b"hello>"
    assert request.stop_ids == [7, 8]


def test_an_engine_that_takes_text_gets_broken_control_tokens() -> None:
    tokenizer = HfTokenizer(FOLDER / "tokenizer_metaspace.json")
    card = Card("m", "llama", tokenizer, ChatTemplate(TEMPLATE + "</s>"), (2,), 100)
    capabilities = Capabilities(takes="text")
    texts = structs.replace(INSTANCE, context_length=100, capabilities=capabilities)
    ids = structs.replace(texts, capabilities=Capabilities())
    [plain] = prepare(_ask("a</s>"), card, [ids], "r").requests
    [broken] = prepare(_ask("a</s>"), card, [ids, texts], "r").requests
    assert plain.prompt == "a</s>></s>"
    assert broken.prompt == f"a<{JOINER}/s>></s>"
    assert broken.token_ids == plain.token_ids
    assert plain.token_ids.count(2) == 1
    assert broken.max_tokens == plain.max_tokens - 4  # the joiner takes up to four tokens
    [parsed] = prepare(_ask("a</s>"), card, [texts], "r", parses_content=True).requests
    assert parsed.prompt == plain.prompt
    assert parsed.token_ids.count(2) == 2


@pytest.mark.parametrize(("asked", "given"), [(None, 14), (3, 3), (1000, 14)])
def test_the_budget_is_limited_by_the_rest_of_the_context(asked: int | None, given: int) -> None:
    [request] = prepare(_ask(max_tokens=asked), CARD, [INSTANCE], "r").requests
    assert request.max_tokens == given


def test_a_prompt_that_leaves_no_room_is_refused_with_both_numbers() -> None:
    assert prepare(_ask("x" * 18), CARD, [INSTANCE], "r").requests[0].max_tokens == 1
    with pytest.raises(ContextLengthExceeded, match=r"20 tokens.* 20 tokens") as caught:
        prepare(_ask("x" * 19), CARD, [INSTANCE], "r")
    assert (caught.value.param, caught.value.code) == ("turns", "context_length_exceeded")


def test_a_field_that_the_engine_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedField, match="llama_cpp does not support 'top_k'") as caught:
        prepare(_ask(top_k=5), CARD, [INSTANCE], "r")
    assert caught.value.param == "top_k"
    prepare(_ask(top_k=0, presence_penalty=0.0), CARD, [INSTANCE], "r")  # neutral values


def test_the_model_s_own_settings_are_defaults() -> None:
    card = Card("m", "llama", Bytes(), ChatTemplate(TEMPLATE), (), 100, 0, Ask(temperature=0.25))
    assert prepare(_ask(), card, [INSTANCE], "r").requests[0].sampling.temperature == 0.25
    ask = _ask(temperature=0.0)
    assert prepare(ask, card, [INSTANCE], "r").requests[0].sampling.temperature == 0.0


def test_choices_have_their_own_ids_and_seeds() -> None:
    requests = prepare(_ask(n=3, seed=5), CARD, [INSTANCE], "r").requests
    assert [r.id for r in requests] == ["r", "r-1", "r-2"]
    assert [r.sampling.seed for r in requests] == [5, 6, 7]


def test_ignoring_eos_leaves_no_stop_ids() -> None:
    [request] = prepare(_ask(ignore_eos=True), CARD, [INSTANCE], "r").requests
    assert (request.stop_ids, request.ignore_eos) == ([], True)


def _able(*names: str) -> Instance:
    return structs.replace(INSTANCE, capabilities=Capabilities(sampling=[*names]))


def test_stop_ids_of_the_client_join_the_model_s_own() -> None:
    able = _able("stop_ids", "ignore_eos")
    [request] = prepare(_ask(stop_ids=[9, 8, 9]), CARD, [able], "r").requests
    assert (request.stop_ids, request.client_stop_ids) == ([7, 8, 9], [9, 8])
    [request] = prepare(_ask(stop_ids=[9], ignore_eos=True), CARD, [able], "r").requests
    assert (request.stop_ids, request.ignore_eos) == ([9], True)
    with pytest.raises(RequestError, match="the token 256, but m has ids 0 to 255") as caught:
        prepare(_ask(stop_ids=[256]), CARD, [able], "r")
    assert caught.value.param == "stop_ids"


def test_a_seed_counts_only_where_something_is_drawn() -> None:
    able = _able("temperature")
    [request] = prepare(_ask(seed=3, temperature=0.0), CARD, [able], "r").requests
    assert request.sampling.seed is None
    greedy = replace(CARD, defaults=Ask(temperature=0.0))
    assert prepare(_ask(seed=3), greedy, [able], "r").requests
    with pytest.raises(UnsupportedField, match="'seed'"):
        prepare(_ask(seed=3, temperature=0.1), greedy, [able], "r")
    with pytest.raises(UnsupportedField, match="'seed'"):
        prepare(_ask(seed=3), CARD, [able], "r")


def test_more_tokens_than_possible() -> None:
    able = _able("min_tokens")
    [request] = prepare(_ask(min_tokens=14), CARD, [able], "r").requests
    assert request.min_tokens == 14
    for asked in (_ask(min_tokens=15), _ask(min_tokens=4, max_tokens=3)):
        with pytest.raises(RequestError, match="at least") as caught:
            prepare(asked, CARD, [able], "r")
        assert caught.value.param == "min_tokens"


@pytest.mark.parametrize("name", ["logprobs", "prompt_logprobs"])
def test_log_probabilities_need_an_engine_that_has_them(name: str) -> None:
    asked = structs.replace(_ask(n=2), **{name: 0})
    with pytest.raises(UnsupportedField, match=f"does not support '{name}'"):
        prepare(asked, CARD, [INSTANCE], "r")
    first, second = prepare(asked, CARD, [INSTANCE, _able(name)], "r").requests
    assert getattr(first, name) == 0
    assert getattr(second, name) == (0 if name == "logprobs" else None)  # one prompt, told once


def test_a_prompt_with_more_log_probabilities_than_one_message_holds() -> None:
    large = structs.replace(_able("prompt_logprobs"), context_length=100_000)
    prepare(_ask("x" * 3100, prompt_logprobs=20), CARD, [large], "r")
    with pytest.raises(RequestError, match="At most 65,536 are possible") as caught:
        prepare(_ask("x" * 3200, prompt_logprobs=20), CARD, [large], "r")
    assert caught.value.param == "prompt_logprobs"


def test_an_answer_that_fits_a_schema_ends_there() -> None:
    guide = Guide("json_schema", "{}")
    can = structs.replace(INSTANCE.capabilities, guides=["json_schema"])
    guided = structs.replace(INSTANCE, capabilities=can)
    assert prepare(_ask(guide=guide), CARD, [guided], "r").requests[0].guide == guide
    with pytest.raises(RequestError, match="cannot be combined") as caught:
        prepare(_ask(guide=guide, ignore_eos=True), CARD, [guided], "r")
    assert caught.value.param == "ignore_eos"
    with pytest.raises(RequestError, match="it may have 262144 bytes") as caught:
        prepare(_ask(guide=Guide("json_schema", "1" * 262_145)), CARD, [guided], "r")
    assert caught.value.param == "guide"


def test_a_bias_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(RequestError, match="names the token 256, but m has ids 0 to 255"):
        prepare(_ask(logit_bias={256: 1.0}), CARD, [INSTANCE], "r")


def test_no_messages_is_an_error_of_the_request() -> None:
    with pytest.raises(RequestError) as caught:
        prepare(Ask(), CARD, [INSTANCE], "r")
    assert caught.value.param == "turns"


def test_defaults_never_bring_messages() -> None:
    defaults = structs.replace(_ask("default"), max_tokens=4)
    assert merged(_ask("mine"), defaults) == _ask("mine", max_tokens=4)


class Counting(Bytes):
    """Remembers the longest text that it encoded."""

    longest = 0

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        self.longest = max(self.longest, len(text))
        return super().encode(text, add_special=add_special, parse_special=parse_special)


def test_a_prompt_that_cannot_fit_is_not_tokenized_whole() -> None:
    tokenizer = Counting()
    card = Card("m", "llama", tokenizer, ChatTemplate(TEMPLATE), ())
    with pytest.raises(ContextLengthExceeded, match=r"20 tokens.* more than \d+ tokens"):
        prepare(_ask("x" * 1_000_000), card, [INSTANCE], "r")
    assert tokenizer.longest < 10_000


def test_a_model_s_own_setting_that_the_engine_cannot_honour_is_left_out() -> None:
    card = replace(CARD, defaults=Ask(top_k=20, temperature=0.5))
    [request] = prepare(_ask(), card, [INSTANCE], "r").requests
    assert (request.sampling.top_k, request.sampling.temperature) == (0, 0.5)
    with pytest.raises(UnsupportedField, match="top_k"):
        prepare(_ask(top_k=20), card, [INSTANCE], "r")
