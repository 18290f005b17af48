"""`out=vllm` with a checkout over HTTP, on one node and on two, and its errors."""

import json
import os
import shutil
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from support.command import Server, children, follower_rank, group_members, is_alive, run, serving
from support.free_ports import free_port
from support.waiting import wait_until

READY_SECONDS = 400
pytestmark = pytest.mark.timeout(READY_SECONDS + 100)


@pytest.fixture(scope="module")
def vllm(engine_python: Callable[[str], str], demo_folder: Path) -> list[str]:
    """Returns the part of the specified command that is about vLLM."""
    found = ["--engine-python", engine_python("vllm")]
    return ["out=vllm", "--model-path", f"{demo_folder}/", *found]


def _ask(server: Server, question: str) -> str:
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0}
    request = urllib.request.Request(
        f"{server.api}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        text: str = json.load(answer)["choices"][0]["message"]["content"]
        return text


def _health(server: Server) -> str:
    try:
        with urllib.request.urlopen(f"{server.url}/health", timeout=10) as answer:
            said: bytes = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            said = error.read()
    return said.decode()


def test_over_http_until_its_core_is_killed(vllm: list[str]) -> None:
    with serving(*vllm, timeout=READY_SECONDS) as server:
        assert _ask(server, "What is the capital of Peru?") == "The capital of Peru is Lima."
        [host] = server.host_pids()
        [core] = [pid for pid, name in group_members(host).items() if "EngineCore" in name]
        os.kill(core, signal.SIGKILL)
        wait_until(lambda: "Restarting it" in _health(server), 60)
        assert "vLLM's engine core has ended" in _health(server)
        wait_until(lambda: not group_members(host))
        wait_until(lambda: server.host_pids() != [])
        [host] = server.host_pids()
        server.process.kill()  # the host ends with its runner
        wait_until(lambda: not group_members(host), 20)


def test_the_error_of_a_worker_process_is_shown(vllm: list[str]) -> None:
    done = run(*vllm, "--", "--kv-cache-memory-bytes", "100t", stdin="hi", timeout=READY_SECONDS)
    line = done.stderr.splitlines()[-1]  # after the progress of the load
    assert done.returncode == 2
    assert "vLLM could not load" in line
    assert "Available memory" in line


def test_an_architecture_that_it_does_not_know(
    vllm: list[str], demo_folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(demo_folder, model)
    config = json.loads((model / "config.json").read_text())
    config["architectures"] = ["NoSuchForCausalLM"]
    (model / "config.json").write_text(json.dumps(config))
    done = run("out=vllm", model, *vllm[3:], stdin="hi", timeout=READY_SECONDS)
    line = done.stderr.splitlines()[-1]  # after the progress of the load
    assert done.returncode == 2
    assert "NoSuchForCausalLM" in line


def test_a_vision_model_answers_text(vllm: list[str], demo_folder: Path, tmp_path: Path) -> None:
    """Most large models are vision models. vLLM makes up random weights for this one."""
    model = tmp_path / "model"
    shutil.copytree(demo_folder, model)
    text = json.loads((model / "config.json").read_text())
    sight = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2}
    sight |= {"num_hidden_layers": 1, "image_size": 56, "patch_size": 14}
    config = {
        "architectures": ["SmolVLMForConditionalGeneration"],
        "model_type": "smolvlm",
        "text_config": text,
        "vision_config": sight,
        "image_token_id": 5,
    }
    (model / "config.json").write_text(json.dumps(config))
    words = ["--context-length", "64", "--", "--load-format", "dummy"]
    done = run("out=vllm", model, *vllm[3:], *words, stdin="hi", timeout=READY_SECONDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_two_nodes_answer_as_one_and_end_together(vllm: list[str]) -> None:
    meeting = f"127.0.0.1:{free_port()}"
    cores = sorted(os.sched_getaffinity(0))  # both nodes run here, each on its own core
    spread = ["--tensor-parallel-size", "2", "--num-nodes", "2", "--dist-init-addr", meeting]
    with follower_rank(
        *vllm, *spread, "--node-rank", "1", VLLM_CPU_OMP_THREADS_BIND=str(cores[-1])
    ) as follower:
        with serving(
            *vllm,
            *spread,
            "--node-rank",
            "0",
            "--stall-timeout",  # its first answer compiles, which takes long on busy cores
            "200",
            timeout=READY_SECONDS,
            VLLM_CPU_OMP_THREADS_BIND=str(cores[0]),
        ) as leader:
            assert _ask(leader, "What is the capital of Peru?") == "The capital of Peru is Lima."
            [host] = children(follower.pid)
            leader.process.kill()
        assert follower.wait(60) == 1
        assert follower.stderr is not None
        assert "as it does when its leader" in follower.stderr.read().splitlines()[-1]
        wait_until(lambda: not is_alive(host))
