from argparse import ArgumentParser
from typing import Any

import pytest

from dynemo.engines.options import check_values, read_options, refuse_options, value_types
from dynemo.errors import UsageError
from dynemo.messages.spec import EngineSpec

KNOWN = ["max_batch_size", "kv_cache_config", "dtype", "trust_remote_code"]


@pytest.mark.parametrize(
    ("words", "read"),
    [
        (["--max-batch-size", "8"], {"max_batch_size": 8}),
        (["--max_batch_size=8"], {"max_batch_size": 8}),
        (["--dtype", "bfloat16"], {"dtype": "bfloat16"}),
        (["--trust-remote-code", "--dtype=auto"], {"trust_remote_code": True, "dtype": "auto"}),
        (["--kv-cache-config", '{"a": 0.5}'], {"kv_cache_config": {"a": 0.5}}),
    ],
)
def test_names_and_values(words: list[str], read: dict[str, object]) -> None:
    assert read_options("trtllm", words, KNOWN) == read


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--max-batch-sice", "8"], 'did you mean "--max-batch-size"'),
        (["--nothing-like-it"], 'Unknown trtllm option "--nothing-like-it"; choose one of --'),
        (["8"], '"8" after `--` follows no option'),
    ],
)
def test_wrong_options_are_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        read_options("trtllm", words, KNOWN)


@pytest.mark.parametrize(
    "given", [{"options": ["--speed", "9"]}, {"extra": {"--speed": 9}}], ids=["word", "file"]
)
def test_an_engine_without_options_refuses_them_from_any_source(given: Any) -> None:
    spec = EngineSpec(engine="echo", model="", workdir="", **given)
    with pytest.raises(
        UsageError, match='The engine echo has no options of its own, but got "--speed"'
    ):
        refuse_options(spec, "echo")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"eager": "yes"}, 'The vLLM option eager takes true or false, not "yes".'),
        ({"slots": "x"}, 'The vLLM option slots takes a whole number, not "x".'),
        ({"slots": True}, "The vLLM option slots takes a whole number, not true."),
        ({"share": [1]}, "The vLLM option share takes a number, not [1]."),
    ],
)
def test_a_value_of_another_kind_is_refused(value: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_values("vLLM", value, value_types(_parser()._actions))
    assert str(caught.value) == sentence


def test_a_value_of_the_right_or_of_an_unknown_type_is_accepted() -> None:
    values = {"eager": False, "slots": None, "share": 1, "sizes": [1, 2], "about": {"a": 1}}
    check_values("vLLM", values, value_types(_parser()._actions))


def _parser() -> ArgumentParser:
    parser = ArgumentParser()
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--slots", type=int)
    parser.add_argument("--share", type=float)
    parser.add_argument("--sizes", type=int, nargs="*")
    parser.add_argument("--about")
    return parser
