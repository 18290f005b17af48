"""SGLang on two nodes: two runners on this machine, whose schedulers meet through gloo."""

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from openai import OpenAI

from support.command import Server, children, follower_rank, group_members, serving
from support.free_ports import free_port
from support.waiting import wait_until

READY_SECONDS = 300
#: Idle ranks poll each other without a pause, each on its own core.
CORES = "SGLANG_CPU_OMP_THREADS_BIND"


@dataclass
class Nodes:
    address: str  #: where they meet
    leader: Server
    follower: "subprocess.Popen[str]"
    groups: list[int]  #: the process groups of the two engine hosts

    def leave_nothing(self) -> bool:
        return not any(map(group_members, self.groups))


@pytest.fixture
def nodes(
    engine_python: Callable[[str], str],
    demo_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Nodes]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    address = f"127.0.0.1:{free_port()}"
    words = ["out=sglang", "--model-path", str(demo_folder)]
    words += ["--engine-python", engine_python("sglang"), "--dist-init-addr", address]
    words += ["--tensor-parallel-size", "2", "--num-nodes", "2"]
    first = [*words, "--node-rank", "0", "--model-name", "demo"]
    with (
        follower_rank(*words, "--node-rank", "1", **{CORES: "1"}) as follower,
        serving(*first, timeout=READY_SECONDS, **{CORES: "0"}) as leader,
    ):
        groups = [*leader.host_pids(), *children(follower.pid)]
        assert len(groups) == 2
        yield Nodes(address, leader, follower, groups)


@pytest.mark.timeout(READY_SECONDS + 200)
def test_they_answer_as_one_and_end_when_the_follower_is_killed(
    nodes: Nodes, tmp_path: Path
) -> None:
    with OpenAI(base_url=nodes.leader.api, api_key="none", timeout=120, max_retries=0) as client:
        answer = client.chat.completions.create(
            model="demo",
            temperature=0,
            messages=[{"role": "user", "content": "What is the capital of Peru?"}],
        )
    assert answer.choices[0].message.content == "The capital of Peru is Lima."
    # The next start finds the code that was compiled for this request.
    assert list((tmp_path / "dynemo-run" / "torchinductor").iterdir())
    nodes.follower.send_signal(signal.SIGKILL)
    assert nodes.leader.process.wait(60) == 1
    wait_until(lambda: nodes.leader.lines[-1].startswith("dynemo-run: "))
    # Which message of gloo appears depends on the operation in flight.
    missed = r"RuntimeError: .*gloo/transport/.*(by peer|Broken pipe|pair closure)"
    assert re.search(missed, nodes.leader.lines[-1])
    wait_until(nodes.leave_nothing, 20)


@pytest.mark.timeout(READY_SECONDS + 200)
def test_the_follower_ends_with_its_leader(nodes: Nodes) -> None:
    assert nodes.leader.end(timeout=30) == 0
    _, said = nodes.follower.communicate(timeout=60)
    assert nodes.follower.returncode == 1
    assert said.startswith("rank 1 of 2 · engine sglang · leader ")
    assert f"Rank 1 has ended, as it does when its leader at {nodes.address} ends." in said
    wait_until(nodes.leave_nothing, 20)
