"""Real clients against a server, each by its script in `scripts/`, as an agent's author uses it.

A script runs in an environment of its own, which `make clients` makes. It gets two addresses: a
server with the demo model, and one with `scripted_engine.py`. That engine plays a model's part
exactly: parallel calls, thoughts, and arguments that a test can compare.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.command import Server, serving

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TEMPLATE = ROOT / "tests" / "fidelity" / "templates" / "Qwen-Qwen3-0.6B.jinja"
#: The clients, with the environment of each.
CLIENTS = {
    "openai": "clients",
    "litellm": "clients",
    "langchain": "clients",
    "pydantic_ai": "clients",
    "instructor": "clients",
    "agents": "clients",
    "llama_index": "clients-llama-index",
}
#: No script may leave this machine: not to send what it does to its makers, not to ask for prices.
QUIET = {
    "DO_NOT_TRACK": "1",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "OPENAI_API_KEY": "none",
}


@pytest.fixture(scope="module")
def servers(
    demo_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Server]]:
    """The servers by the names of their models."""
    model = tmp_path_factory.mktemp("models") / "scripted"
    shutil.copytree(demo_folder, model, ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copyfile(TEMPLATE, model / "chat_template.jinja")
    with ExitStack() as stack:
        engine = f"out={HERE / 'scripted_engine.py'}"
        yield {
            "demo": stack.enter_context(serving()),
            "scripted": stack.enter_context(serving(engine, model)),
        }


@pytest.mark.timeout(180)  # the first import of a client compiles thousands of files
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client(client: str, servers: dict[str, Server]) -> None:
    python = ROOT / ".venv" / CLIENTS[client] / "bin" / "python"
    if not (ROOT / ".venv" / "ready-clients").exists():
        pytest.skip("the clients are not installed: `make clients` installs them for the tests")
    seen = {name: len(server.lines) for name, server in servers.items()}
    done = subprocess.run(
        [python, HERE / "scripts" / f"use_{client}.py", *(s.api for s in servers.values())],
        capture_output=True,
        text=True,
        timeout=170,
        env={**os.environ, **QUIET},
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Traceback" not in said
    for name, server in servers.items():
        lines = server.lines[seen[name] :]
        assert not [line for line in lines if "Traceback" in line or "error" in line], lines
