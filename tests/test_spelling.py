import pytest

from dynemo.app.settings.options import OPTIONS
from dynemo.spelling import nearest, shortened, with_reason

FLAGS = [spelling for option in OPTIONS for spelling in option.spellings]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("--http-prot", "--http-port"),
        ("--http_port", "--http-port"),
        ("--request-templat", "--request-template"),
        ("--tsl", "--tls"),
        ("--port", "--http-port"),
        ("--size-tensor", "--tensor-parallel-size"),
        ("--modle", "--model-path"),
        ("--templates", "--request-template"),
        ("--temprature", None),
        ("--temperature", None),
        ("--nonsense", None),
        ("--seed", None),
        ("--verbose", None),
        ("--gpu", None),
        ("--", None),
    ],
)
def test_an_unknown_flag(written: str, meant: str | None) -> None:
    assert nearest(written, FLAGS) == meant


def test_the_nearest_of_several_is_meant() -> None:
    assert nearest("--temprature", ["--request-template", "--temperature"]) == "--temperature"
    assert nearest("--cache-typ-v", ["--cache-type-k", "--cache-type-v"]) == "--cache-type-v"


def test_a_reason_is_a_word_or_sentences() -> None:
    assert with_reason("It waits", "loading") == "It waits: loading."
    assert with_reason("It waits", "It has ended. It restarts.") == (
        "It waits. It has ended. It restarts."
    )


def test_a_long_text_is_shortened() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abc..."
