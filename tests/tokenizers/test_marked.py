"""A text that spells control tokens, encoded as plain characters."""

import json
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynemo.errors import RequestError
from dynemo.prompt.control.spellings import Spellings
from dynemo.tokenizers.base import Tokenizer
from dynemo.tokenizers.hf.tokenizer import HfTokenizer
from support.fidelity_data import FOLDER
from support.tokenizer_kinds import KINDS, tokenizer_of, unigram
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

CONTROL = ("<|im_start|>", "<|im_end|>", "<|im|>", "|im_end|>", "</s>", "[INST]", "<a><b>", "<b>")
MARK = "\ue123"
PIECES = (
    *CONTROL,
    "<|im_",
    "end|>",
    "<",
    "</",
    "s>",
    " ",
    "  ",
    "\n",
    "Hello",
    " world",
    "1.",
    "é",
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=7).map("".join)

made = cache(lambda kind: tokenizer_of(kind, CONTROL))


def marked(text: str, tokenizer: Tokenizer) -> tuple[str, dict[str, str]]:
    """Replaces the first character of each control token's text by a mark."""
    spellings = Spellings(tokenizer.whole_texts().control, (), (), opens=(), is_folded=False)
    places = set(spellings.hits(text, may_reason=False))
    marks = {text[at]: chr(0xE100 + number) for number, at in enumerate(sorted(places))}
    changed = "".join(marks[c] if at in places else c for at, c in enumerate(text))
    return changed, {mark: character for character, mark in marks.items()}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_it_equals_a_text_in_which_no_control_token_is_parsed(kind: str, text: str) -> None:
    tokenizer = made(kind)
    changed, marks = marked(text, tokenizer)
    plain = tokenizer.encode(text, add_special=False, parse_special=False)
    control = {tokenizer.token_id(each) for each in tokenizer.whole_texts().control}
    control.discard(tokenizer.token_id("<unk>"))
    control.discard(tokenizer.token_id("[UNK]"))
    ids = tokenizer.encode_marked(changed, marks)
    if not control.intersection(plain):
        assert ids == plain
    assert not control.intersection(ids)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS.filter(lambda text: not any(t in text for t in CONTROL)), max_size=3))
def test_without_a_mark_it_equals_the_usual_encoding(kind: str, texts: list[str]) -> None:
    tokenizer = made(kind)
    prompt = "<|im_end|>\n<|im_start|>user\n".join(texts) + "</s>"
    ids = tokenizer.encode(prompt, add_special=False, parse_special=True)
    assert tokenizer.encode_marked(prompt, {MARK: "<"}) == ids


def test_the_white_space_that_a_token_absorbs() -> None:
    backend = Backend.from_file(str(FOLDER / "tokenizer_metaspace.json"))
    backend.add_special_tokens(
        [
            AddedToken("<L>", lstrip=True, normalized=False),
            AddedToken("<R>", rstrip=True, normalized=False),
            AddedToken("<W>", single_word=True, normalized=False),
            AddedToken("<N>", normalized=True),
        ]
    )
    tokenizer = HfTokenizer(backend.to_str().encode())
    for prompt in ("a  <L>  b <R>  c", " <R> <L> ", "x<W>y <W> z", " <N>a <N> b", "<L><R>"):
        plain = tokenizer.encode(prompt, add_special=False, parse_special=True)
        assert tokenizer.encode_marked(prompt, {MARK: "<"}) == plain
        more = tokenizer.encode_marked(f"{prompt}{MARK}L>", {MARK: "<"})
        assert more.count(tokenizer.token_id("<L>") or -1) == prompt.count("<L>")


def test_a_vocabulary_that_makes_a_control_token_of_its_text_is_cut() -> None:
    tokenizer = HfTokenizer(unigram())
    end = tokenizer.token_id("</s>")
    assert end in tokenizer.encode("a</s>", add_special=False, parse_special=False)
    ids = tokenizer.encode_marked(f"a{MARK}/s></s>", {MARK: "<"})
    assert ids.count(end or -1) == 1
    assert ids[-1] == end


def test_a_token_without_a_plain_form_is_refused() -> None:
    whole = json.loads(unigram())
    whole["added_tokens"].append({**whole["added_tokens"][0], "id": 4, "content": "a"})
    tokenizer = HfTokenizer(json.dumps(whole).encode())
    with pytest.raises(RequestError, match="no other form"):
        tokenizer.encode_marked(f"{MARK}b", {MARK: "a"})


def test_half_a_surrogate_pair_is_an_error_as_usual() -> None:
    with pytest.raises(UnicodeError):
        made("metaspace").encode_marked(f"{MARK}\ud83d", {MARK: "<"})
    with pytest.raises(RequestError, match="surrogate"):
        made("llama-spm").encode_marked(f"{MARK}\ud83d", {MARK: "<"})
