"""Texts that make a tokenizer slow: long runs, marks, look-alikes. Its time must stay linear."""

import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from dynemo.models.find import demo_checkout
from dynemo.models.gguf import read_gguf
from dynemo.tokenizers.base import Tokenizer
from dynemo.tokenizers.gguf.pretokenize import PRE_TOKENIZERS
from dynemo.tokenizers.gguf.special import SpecialTokens
from dynemo.tokenizers.gguf.split import Splitter
from dynemo.tokenizers.gguf.tokenizer import load_tokenizer
from dynemo.tokenizers.gguf.vocab import (
    CONTROL,
    LSTRIP,
    NORMAL,
    RSTRIP,
    USER_DEFINED,
    SpecialIds,
    Vocabulary,
)
from dynemo.tokenizers.hf.tokenizer import HfTokenizer
from support.gguf_files import VOCABULARIES, unpack_vocabulary
from support.llama_vocabularies import Keys, gemma4, plamo, rwkv, t5

UNITS = [
    " ", "\n", "\r\n", "\t", " \n", "1", "a", "A", "!", "'", "'s", "ﬁ", "\u0301", "a\u0301",
    "\U0001f469\u200d\U0001f469", "\u200d", "中", "か", "가", "ก", "a1", "a ", "aA", "\u00a0",
    "\u2028",    "<|", "<|im_start|>", "<sentinel:", "IMGIMGA", "/", "_", "$",
]  # fmt: skip
#: Text after a run: a pattern that wants the end of the text tries again at each character.
ENDS = ["", "1", " a"]
SIZE = 4_000


def seconds(work: Callable[[str], object], text: str) -> float:
    started = time.thread_time()
    work(text)
    return time.thread_time() - started


def check_linear(work: Callable[[str], object], unit: str, end: str) -> None:
    """Asserts that four times the text takes at most eight times as long."""
    small, large = unit * (SIZE // len(unit)) + end, unit * (4 * SIZE // len(unit)) + end
    least = seconds(work, large)
    if least < 0.3:  # some ten times as long as these texts take; quadratic work takes longer
        return
    ratio = min(seconds(work, large) for _ in range(3)) / min(
        seconds(work, small) for _ in range(3)
    )
    assert ratio <= 8, f"{unit!r} and {end!r}: {least:.2f} s"


PATTERNS = {"/".join(each.patterns): name for name, each in PRE_TOKENIZERS.items()}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", PATTERNS.values())
def test_every_pattern_splits_in_linear_time(name: str) -> None:
    splitter = Splitter(PRE_TOKENIZERS[name].patterns)
    for unit in UNITS:
        for end in ENDS:
            check_linear(splitter.split, unit, end)


def test_white_space_before_the_end_splits_as_in_llama_cpp() -> None:
    """The pattern differs from llama.cpp's so that it takes linear time; its words do not."""
    fast = PRE_TOKENIZERS["deepseek-llm"].patterns
    slow = tuple(pattern.replace(r"(?<!\s)\s+$", r"\s+$") for pattern in fast)
    assert slow != fast
    one, other = Splitter(fast), Splitter(slow)
    rng = random.Random(3)
    for _ in range(3000):
        text = "".join(rng.choices(" \t\n\v\u00a0\u2028ab1!中", k=rng.randrange(30)))
        assert one.split(text) == other.split(text)


def read_back(keys: Keys) -> Keys:
    """Returns keys as a GGUF gives them back: bytes are a list of numbers."""
    return {key: list(value) if isinstance(value, bytes) else value for key, value in keys.items()}


SMALL: dict[str, Callable[[], Keys]] = {
    "gemma4": gemma4,
    "rwkv": rwkv,
    "plamo2": partial(plamo, "plamo2"),
    "plamo3": partial(plamo, "plamo3"),
    "t5": lambda: read_back(t5(adds_space=True, merges_spaces=True)),
}


@pytest.fixture(scope="module", params=[*VOCABULARIES, *SMALL, "hf"])
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    name: str = request.param
    if name == "hf":
        return HfTokenizer(demo_checkout() / "tokenizer.json")
    if made := SMALL.get(name):
        return load_tokenizer(made())
    folder: Path = tmp_path_factory.mktemp("vocabulary")
    return load_tokenizer(read_gguf(unpack_vocabulary(name, folder)).metadata)


@pytest.mark.timeout(120)
def test_every_tokenizer_encodes_in_linear_time(tokenizer: Tokenizer) -> None:
    def encode(text: str) -> object:
        return tokenizer.encode(text, add_special=False, parse_special=True)

    for unit in UNITS:
        for end in ENDS[:2]:
            check_linear(encode, unit, end)


_NO_IDS = SpecialIds(None, None, None, None, None, None, None, frozenset())


def special_tokens(tokens: list[str], attributes: list[int]) -> SpecialTokens:
    ids = {text: i for i, text in enumerate(tokens)}
    return SpecialTokens(Vocabulary("gpt2", tokens, ids, [], attributes, _NO_IDS))


def test_thousands_of_special_tokens_in_one_text_take_linear_time() -> None:
    tokens = [f"<unused{number}>" for number in range(6000)]
    special = special_tokens(tokens, [CONTROL] * len(tokens))
    text = "".join(tokens)
    assert special.split(text, parse_special=True) == list(range(6000))
    assert seconds(lambda text: special.split(text, parse_special=True), text * 4) < 3
    assert special.split("<unused" * 9, parse_special=True) == ["<unused" * 9]


def test_many_special_tokens_are_found_as_few_are() -> None:
    """One pass over the text gives what llama.cpp's cut for each token gives."""
    rng = random.Random(4)
    alphabet = "ab< \n"
    for _ in range(300):
        made = {"".join(rng.choices(alphabet, k=rng.randrange(1, 5))) for _ in range(60)}
        tokens = sorted(made)
        kinds = rng.choices((CONTROL, USER_DEFINED, NORMAL), k=len(tokens))
        strips = rng.choices((0, 0, LSTRIP, RSTRIP, LSTRIP | RSTRIP), k=len(tokens))
        attributes = [kind | strip for kind, strip in zip(kinds, strips, strict=True)]
        special = special_tokens(tokens, attributes)
        text = "".join(rng.choices(alphabet + "xyz", k=rng.randrange(80)))
        for parse in (True, False):
            assert special.split(text, parse) == cut_for_each(tokens, attributes, text, parse)


def cut_for_each(
    tokens: list[str], attributes: list[int], text: str, parse: bool
) -> list[str | int]:
    """Splits as llama.cpp does: for each token, longest first, it cuts the rest of the text."""
    wanted = CONTROL | USER_DEFINED if parse else USER_DEFINED
    order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
    parts: list[str | int] = [text] if text else []
    for i in (i for i in order if attributes[i] & wanted):
        done: list[str | int] = []
        for part in parts:
            pieces: list[str | int] = [part]
            if isinstance(part, str):
                pieces = [*part.split(tokens[i])]
            for number, piece in enumerate(pieces):
                if isinstance(piece, int):
                    done.append(piece)
                    continue
                if number:
                    done.append(i)
                    piece = piece.lstrip(" \n") if attributes[i] & RSTRIP else piece
                if number < len(pieces) - 1 and attributes[i] & LSTRIP:
                    piece = piece.rstrip(" \n")
                done += [piece] if piece else []
        parts = done
    return parts
