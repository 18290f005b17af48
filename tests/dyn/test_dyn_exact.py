"""The demo model in the deterministic profile: what moves goes on with the very same text."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dyn_fleet import fleet
from dyn_servers import Servers, servers_running
from dyn_streams import TOKENS, streams

ROOT = Path(__file__).parents[2]
PROFILE = ["--flash-attn", "off", "--cache-type-k", "f32", "--cache-type-v", "f32"]
PROFILE += ["--threads", "1"]
MANY = 24


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    yield from servers_running()


@pytest.fixture(scope="module")
def model(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("f32") / "demo-f32.gguf"
    convert = ROOT / "tools" / "demo_model" / "convert.py"
    subprocess.run([sys.executable, convert, demo_folder, out, "--type", "f32"], check=True)
    return out


@pytest.mark.timeout(60)
def test_a_worker_is_killed_and_another_stopped(servers: Servers, model: Path) -> None:
    with fleet(servers.flags) as pool:
        words: list[str | Path] = ["out=llama_cpp", model, "--model-name", "demo", "--grace", "0.1"]
        first, second, _ = pool.workers(3, *words, "--", *PROFILE)
        ingress = pool.ingress("--router-mode", "round-robin", workers=3)
        expected = streams([ingress], MANY, length=5, ignore_eos=True)
        assert {answer.usage and answer.usage[1] for answer in expected} == {TOKENS}
        half = min(answer.seconds for answer in expected) / 2
        got = streams(
            [ingress],
            MANY,
            (half / 2, first.kill),
            (half, lambda: second.send(signal.SIGTERM)),
            length=5,
            ignore_eos=True,
        )
        assert [answer.whole for answer in got] == [answer.whole for answer in expected]
        assert sum(" moves after" in line for line in ingress.lines) > MANY / 3
