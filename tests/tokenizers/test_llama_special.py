"""Special tokens in a text, as llama.cpp finds them."""

import pytest

from dynemo.tokenizers.gguf.special import SpecialTokens
from dynemo.tokenizers.gguf.vocab import (
    CONTROL,
    LSTRIP,
    NORMAL,
    RSTRIP,
    UNKNOWN,
    USER_DEFINED,
    SpecialIds,
    Vocabulary,
)

NONE = SpecialIds(None, None, None, None, None, None, None, frozenset())


def _special(**attributes: int) -> SpecialTokens:
    tokens = list(attributes)
    ids = {text: i for i, text in enumerate(tokens)}
    return SpecialTokens(Vocabulary("gpt2", tokens, ids, [], [*attributes.values()], NONE))


def test_longer_tokens_win_wherever_they_stand() -> None:
    special = _special(ab=CONTROL, bcd=CONTROL)
    assert special.split("abcd ab", True) == ["a", 1, " ", 0]


def test_length_counts_in_bytes() -> None:
    special = _special(abcd=CONTROL, d文字=CONTROL)
    assert special.split("abcd文字", True) == ["abc", 1]


def test_of_equal_lengths_the_lower_id_wins() -> None:
    assert _special(ab=CONTROL, bc=CONTROL).split("abc", True) == [0, "c"]


def test_without_parsing_only_user_defined_tokens_count() -> None:
    special = _special(aa=CONTROL, bb=UNKNOWN, cc=USER_DEFINED, dd=NORMAL)
    assert special.split("aabbccdd", False) == ["aabb", 2, "dd"]
    assert special.split("aabbccdd", True) == [0, 1, 2, "dd"]


def test_white_space_beside_a_token() -> None:
    special = _special(L=CONTROL | LSTRIP, R=CONTROL | RSTRIP, N=CONTROL)
    assert special.split("a \nL b R \v\t c N d", True) == ["a", 0, " b ", 1, "c ", 2, " d"]
    assert special.split("a\u3000L", True) == ["a\u3000", 0]
    assert special.split("  L", True) == [0]
    assert special.split("R  ", True) == [1]


@pytest.mark.parametrize("count", [3, 200])
def test_many_tokens_are_found_as_few_are(count: int) -> None:
    special = _special(**{f"<{i}>": CONTROL for i in range(count)}, **{"  ": USER_DEFINED})
    assert special.split("<2>a <1>  <<0><2", True) == [2, "a ", 1, count, "<", 0, "<2"]


def test_nothing_to_find() -> None:
    assert _special(a=NORMAL).split("aaa", True) == ["aaa"]
    assert _special(a=CONTROL).split("", True) == []
