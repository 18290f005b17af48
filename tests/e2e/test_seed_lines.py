"""The commands of the specification run as they are printed, but with other model paths.

Other files test the commands whose engines load slowly:
- `test_sglang_nodes.py`: `in=http out=sglang ... --num-nodes 2 --node-rank 0` and
  `in=none ... --node-rank 1`, as two processes on this machine, with `--tensor-parallel-size 2`
  instead of 8;
- `test_e2e_vllm.py`: `in=http out=vllm --model-path DIR/`.
"""

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from support.command import COMMAND, Server, run, serving
from support.dyn_fleet import Fleet, come
from support.dyn_servers import Servers
from support.pseudo_terminal import CTRL_D, PROMPT, Terminal
from support.trtllm_standin import make_engine_folder, python_with_standin
from support.waiting import wait_until

QUESTION, ANSWER = "What is the capital of Peru?", "The capital of Peru is Lima."


def _chat(command: list[str], state: Path, engine: str) -> str:
    """Asks one question in a chat on a terminal. Returns the answer on the screen."""
    with closing(Terminal([*COMMAND, *command], state)) as terminal:
        assert f"· engine {engine} ·" in terminal.wait(PROMPT, 60)
        shown = terminal.ask(QUESTION, "tokens/s")
        terminal.type(CTRL_D)
        assert terminal.process.wait(10) == 0
        return shown


def _ask(server: Server, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    headers = {"content-type": "application/json"}
    url = f"{server.api}/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        text: str = json.load(answer)["choices"][0]["message"]["content"]
        return text


def _models(server: Server) -> list[str]:
    """Returns the models that `curl localhost:PORT/v1/models` prints."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    url = server.api.removeprefix("http://").replace("127.0.0.1", "localhost") + "/models"
    said = subprocess.run([curl, "-s", url], capture_output=True, check=True, timeout=10).stdout
    return [model["id"] for model in json.loads(said)["data"]]


@pytest.mark.timeout(120)
def test_a_gguf_opens_a_chat_with_llama_cpp(demo: Path, tmp_path: Path) -> None:
    """`dynemo-run Llama-3.2-1B-Instruct-Q4_K_M.gguf`"""
    assert ANSWER in _chat([str(demo)], tmp_path, "llama_cpp")


@pytest.mark.timeout(120)
def test_a_gguf_with_the_tokenizer_of_a_checkout(
    demo: Path, demo_folder: Path, tmp_path: Path
) -> None:
    """`dynemo-run out=llama_cpp --model-path Llama-3.2-3B-Instruct-Q6_K.gguf
    --model-config DIR/`"""
    words = ["out=llama_cpp", "--model-path", str(demo), "--model-config", f"{demo_folder}/"]
    assert ANSWER in _chat(words, tmp_path, "llama_cpp")


def test_a_gguf_over_http_and_its_name_with_curl(demo: Path) -> None:
    """`dynemo-run in=http --model-path Llama-3.2-1B-Instruct-Q4_K_M.gguf`, and
    `curl localhost:8080/v1/models`"""
    with serving("--model-path", demo) as server:
        wait_until(lambda: any("engine llama_cpp" in line for line in server.lines))
        [model] = _models(server)
        assert _ask(server, model) == ANSWER


def test_a_checkout_goes_to_mistralrs(demo_folder: Path) -> None:
    done = run(demo_folder, stdin=QUESTION)
    assert done.stdout == f"{ANSWER}\n"
    assert "engine mistralrs" in done.stderr


@pytest.mark.timeout(120)
def test_a_pool_of_one_worker(servers: Servers, demo_folder: Path) -> None:
    """`dynemo-run in=http out=dyn://llama3B_pool`, and
    `dynemo-run in=dyn://llama3B_pool out=mistralrs ~/llm_models/Llama-3.2-3B-Instruct`"""
    with ExitStack() as stack:
        pool = Fleet(stack, servers.flags, "llama3B_pool")
        ingress = pool.ingress()
        worker = pool.start("out=mistralrs", demo_folder)
        wait_until(lambda: worker.is_ready, 30)
        wait_until(lambda: come(ingress) == 1)
        [model] = _models(ingress)
        assert _ask(ingress, model) == ANSWER


@pytest.mark.timeout(120)
def test_a_gguf_for_vllm(
    engine_python: Callable[[str], str], demo: Path, demo_folder: Path
) -> None:
    """`dynemo-run in=http out=vllm --model-path Llama-3.2-3B-Instruct-Q6_K.gguf
    --model-config DIR/`

    It needs a GPU and a plugin of vLLM. Without the plugin, one sentence says what to do.
    """
    python = engine_python("vllm")
    words = ["--model-path", str(demo), "--model-config", f"{demo_folder}/"]
    done = run("in=http", "out=vllm", *words, "--engine-python", python, timeout=60)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert f"vllm-gguf-plugin, on a GPU. Install that for {python}" in line
    assert "or use out=llama_cpp for this file" in line


@pytest.mark.timeout(120)
def test_a_folder_that_tensorrt_llm_built(demo_folder: Path, tmp_path: Path) -> None:
    """`dynemo-run in=text out=trtllm --model-path /app/trtllm_engine/ --model-config DIR/`

    TensorRT-LLM needs an NVIDIA GPU, so a stand-in answers, with meaningless ids.
    """
    (tmp_path / "built").mkdir()
    built = make_engine_folder(tmp_path / "built", demo_folder)
    words = ["in=text", "out=trtllm", "--model-path", f"{built}/"]
    words += ["--model-config", f"{demo_folder}/"]
    python = python_with_standin(tmp_path / "python")
    _chat([*words, "--engine-python", python], tmp_path, "trtllm")
