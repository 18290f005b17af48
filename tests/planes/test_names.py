import pytest

from dynemo.errors import UsageError
from dynemo.planes.names import EndpointName, parse_name


@pytest.mark.parametrize(
    ("word", "address"),
    [
        ("dyn://llama3B_pool", EndpointName("dynemo", "llama3B_pool", "generate")),
        ("dyn://ns/pool/answer", EndpointName("ns", "pool", "answer")),
        ("dyn://ns.pool.answer", EndpointName("ns", "pool", "answer")),
        ("dyn", EndpointName("dynemo", "", "generate")),
    ],
)
def test_names(word: str, address: EndpointName) -> None:
    assert parse_name(word) == address


@pytest.mark.parametrize(
    "word", ["dyn://", "dyn://a/b", "dyn://a/b/c/d", "dyn://a b", "dyn://é", "dyn://" + "a" * 129]
)
def test_the_error_for_an_invalid_name_shows_both_forms(word: str) -> None:
    with pytest.raises(UsageError, match=r"dyn://NAME or dyn://NAMESPACE/COMPONENT/ENDPOINT"):
        parse_name(word)
