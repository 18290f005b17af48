from typing import Any

import pytest

from dynemo.engines.options import read_options, refuse_options
from dynemo.errors import UsageError
from dynemo.messages import EngineSpec

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
        (["--max-batch-sice", "8"], "did you mean --max-batch-size"),
        (["--nothing-like-it"], "no option '--nothing-like-it'"),
        (["8"], "'8' after `--` belongs to no option"),
    ],
)
def test_what_is_wrong(words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        read_options("trtllm", words, KNOWN)


@pytest.mark.parametrize(
    "given", [{"options": ["--speed", "9"]}, {"extra": {"--speed": 9}}], ids=["word", "file"]
)
def test_an_engine_without_options_refuses_them_from_wherever_they_come(given: Any) -> None:
    spec = EngineSpec(engine="echo", model="", workdir="", **given)
    with pytest.raises(UsageError, match="echo has no options of its own, but got '--speed'"):
        refuse_options(spec, "echo")
