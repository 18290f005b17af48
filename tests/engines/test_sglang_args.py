"""The arguments that SGLang gets: the user's own, parsed by SGLang's own parser, over ours."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import dynemo
from dynemo.engines.rendezvous import rendezvous_address
from dynemo.engines.sglang.args import defaults
from dynemo.errors import UsageError
from dynemo.messages.spec import EngineSpec, Parallel

#: Reads a spec per line. Writes the arguments or the error message per line.
_READ = """
import json, os, sys
os.environ["SGLANG_USE_CPU_ENGINE"] = "1"
sys.path.insert(0, sys.argv[1])
from msgspec import json as wire
from dynemo.engines.sglang.args import server_args
from dynemo.errors import UsageError
from dynemo.messages.spec import EngineSpec
for line in sys.stdin:
    try:
        made = server_args(wire.decode(line, type=EngineSpec), is_cpu=True)
    except UsageError as error:
        made = str(error)
    print(json.dumps(made))
"""


def _spec(**said: Any) -> EngineSpec:
    said = {"kv_bytes_per_token": 2048, "model_context": 4096, **said}
    return EngineSpec(engine="sglang", model="m", workdir="", **said)


@pytest.fixture(scope="module")
def read(engine_python: Callable[[str], str]) -> dict[str, Any]:
    """Returns the result for each spec.

    One process handles them all, because SGLang's import is slow.
    """
    specs = {
        "plain": _spec(),
        "given": _spec(
            context_length=1000,
            slots=1,
            options=["--max-total-tokens", "5k", "--dtype=bfloat16", "--enable-metrics"],
            extra={"dtype": "float16", "chunked-prefill-size": 512},
        ),
        "unknown": _spec(options=["--max-total-tokes", "5"]),
        "value": _spec(options=["--max-total-tokens", "many"]),
        "missing": _spec(options=["--dtype"]),
        "word": _spec(options=["five"]),
        "ours": _spec(options=["--tp-size", "2"]),
        "fixed": _spec(options=["--skip-tokenizer-init"]),
        "file": _spec(options=["--config", "x.yaml"]),
        "extra": _spec(extra={"max_total_token": 5}),
        "kind": _spec(extra={"max_running_requests": "x"}),
        "extra, ours": _spec(extra={"nnodes": 2}),
        "stages": _spec(
            parallel=Parallel(tensor=1, nodes=3, rank=1, leader="127.0.0.1:1"),
            options=["--pp-size", "3"],
        ),
        "no stages": _spec(parallel=Parallel(tensor=2, nodes=3, rank=1, leader="127.0.0.1:1")),
    }
    done = subprocess.run(
        [engine_python("sglang"), "-c", _READ, str(Path(dynemo.__file__).parent.parent)],
        input="\n".join(msgspec.json.encode(spec).decode() for spec in specs.values()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line[:1] in '{"' and line]
    return dict(zip(specs, lines, strict=True))


@pytest.mark.timeout(200)
def test_the_arguments_that_reach_it(read: dict[str, Any]) -> None:
    assert read["plain"] == {
        "model_path": "m",
        "skip_tokenizer_init": True,
        "incremental_streaming_output": True,
        "log_level": "warning",
        "tp_size": 1,
        "nnodes": 1,
        "node_rank": 0,
        "context_length": 4102,
        "device": "cpu",
        "dtype": "float32",
        "attention_backend": "torch_native",
        "sampling_backend": "pytorch",
        "disable_cuda_graph": True,
        "sleep_on_idle": True,
        "max_running_requests": 32,
        "max_total_tokens": 8 * 4102,
    }
    given = read["given"]
    assert given["context_length"] == 1006
    assert given["max_running_requests"] == 1
    assert given["max_total_tokens"] == 5000
    assert given["dtype"] == "bfloat16"  # options after `--` take precedence
    assert given["chunked_prefill_size"] == 512
    assert given["enable_metrics"] is True
    assert read["stages"]["pp_size"] == 3


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "unknown",
            'Unknown sglang option "--max-total-tokes"; did you mean "--max-total-tokens"?',
        ),
        ("missing", "SGLang refuses its options: argument --dtype: expected one argument."),
        ("word", 'Unknown sglang option "five"; `sglang serve --help` lists them.'),
        (
            "ours",
            "The sglang option tp_size follows from --tensor-parallel-size. Set it there, before "
            "`--`.",
        ),
        ("fixed", "The sglang option skip_tokenizer_init is set by dynemo-run. Remove it."),
        (
            "file",
            "The sglang option config follows from --extra-engine-args. Set it there, before `--`.",
        ),
        (
            "extra",
            'Unknown sglang option "max_total_token" in --extra-engine-args; '
            'did you mean "max_total_tokens"?',
        ),
        ("kind", 'The sglang option max_running_requests takes a whole number, not "x".'),
        (
            "no stages",
            "--tensor-parallel-size 2 cannot be divided among --num-nodes 3. Use a multiple of 3.",
        ),
        (
            "extra, ours",
            "The sglang option nnodes follows from --num-nodes. Set it there, before `--`.",
        ),
    ],
)
def test_invalid_settings_are_refused(read: dict[str, Any], name: str, sentence: str) -> None:
    assert read[name] == sentence
    assert read["value"].startswith("SGLang refuses its options: argument --max-total-tokens")


def test_on_a_gpu_its_own_defaults_hold() -> None:
    assert defaults(_spec(), is_cpu=False).keys() == {
        "model_path",
        "skip_tokenizer_init",
        "incremental_streaming_output",
        "log_level",
        "tp_size",
        "nnodes",
        "node_rank",
    }
    assert defaults(_spec(context_length=512), is_cpu=False)["context_length"] == 518


@pytest.mark.parametrize("leader", ["", "host", ":5", "host:", "host:x", "host:70000"])
def test_an_invalid_rendezvous_address(leader: str) -> None:
    with pytest.raises(UsageError, match="--dist-init-addr takes HOST:PORT"):
        rendezvous_address(Parallel(tensor=2, nodes=2, leader=leader))
