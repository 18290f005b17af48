"""Workers that would stop the others of their pool, or take their requests."""

import json
from pathlib import Path

import pytest

from support.command import run
from support.dyn_fleet import Fleet, get
from support.dyn_servers import Servers
from support.dyn_streams import one, streams
from support.waiting import wait_until

FAILING = """
async def generate(request):
    raise RuntimeError("the device is broken")
    yield ""
"""
REPEATING = """
async def generate(request):
    yield request.prompt
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["random", "round-robin", "least-loaded", "prefix"])
def test_a_worker_that_fails_at_once_does_not_draw_the_traffic(
    pool: Fleet, tmp_path: Path, mode: str
) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    (tmp_path / "good.py").write_text(REPEATING)
    model = ("--model-name", "m")
    for name in ("good", "good", "failing"):
        pool.start(f"out={tmp_path / name}.py", *model)
    ingress = pool.ingress("--router-mode", mode, workers=3)
    got = [answer for _ in range(10) for answer in streams([ingress], 30, max_tokens=8)]
    assert [answer.error for answer in got if answer.error] == []
    _, _, health = get(f"{ingress.url}/health")
    states = sorted(each["state"] for each in health["models"][0]["instances"])
    assert states == ["failing", "ready", "ready"]
    [reason] = [each["reason"] for each in health["models"][0]["instances"] if each["reason"]]
    assert "the device is broken" in reason
    wait_until(lambda: any("only now and then" in line for line in ingress.lines))


@pytest.mark.timeout(60)
def test_ps_names_an_instance_whose_engine_fails(
    pool: Fleet, servers: Servers, tmp_path: Path
) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    worker = pool.start(f"out={tmp_path / 'failing.py'}", "--model-name", "m")
    wait_until(lambda: worker.is_ready, 15)
    ingress = pool.ingress(workers=1)
    assert {one(ingress.url).status for _ in range(4)} == {500}
    done = run("ps", "--json", *servers.flags[:4])
    assert "failed the last 4 requests" in done.stderr
    assert [each["failures"] for each in json.loads(done.stdout)["instances"]] == [4]
