"""Errors at the start, and an ingress without workers."""

import time
from pathlib import Path

import pytest

from support.command import run
from support.dyn_fleet import Fleet, get
from support.dyn_servers import Servers
from support.dyn_streams import one
from support.free_ports import free_port
from support.waiting import wait_until


@pytest.mark.parametrize("place", [["in=dyn://lost", "out=echo"], ["in=stdin", "out=dyn://lost"]])
@pytest.mark.parametrize("away", ["etcd", "nats"])
def test_a_server_that_is_not_there(servers: Servers, place: list[str], away: str) -> None:
    flags = [*servers.flags, f"--{away}", f"127.0.0.1:{(port := free_port())}"]
    began = time.monotonic()
    done = run(*place, *flags, stdin="Hello")
    assert time.monotonic() - began < 8  # 3 s, and the start of a process on a busy machine
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert f"127.0.0.1:{port}" in line
    assert "services up" in line


def test_a_server_that_comes_while_it_is_waited_for(servers: Servers) -> None:
    port = free_port()
    began = time.monotonic()
    done = run("in=dyn://lost", "out=echo", "--etcd", f"127.0.0.1:{port}", "--wait", "1.5")
    assert time.monotonic() - began > 1.5
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["in=dyn://pool", "out=dyn://pool"], "only passes requests on"),
        (["in=dyn://a/b", "out=echo"], "dyn://NAMESPACE/COMPONENT/ENDPOINT"),
        (["in=http", "out=dyn://a/b/c/d"], "dyn://NAMESPACE/COMPONENT/ENDPOINT"),
        (["in=http", "out=dyn://a b"], "letters, digits"),
    ],
)
def test_an_invalid_name(words: list[str], reason: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert reason in line


def test_another_model_under_a_taken_name(pool: Fleet, tmp_path: Path, demo_folder: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in demo_folder.iterdir():
        (other / file.name).symlink_to(file)
    template = other / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    template.unlink()
    template.write_text(f"{text}!", encoding="utf-8")
    [worker] = pool.workers(1, "--model-name", "demo")
    refused = pool.start(other, "--model-name", "demo")
    assert refused.process.wait(10) == 2
    wait_until(lambda: refused.lines)
    [line] = refused.lines
    assert '"demo"' in line
    assert "template" in line
    assert "--model-name" in line
    pool.workers(1, other, "--model-name", "other")
    worker.close()
    pool.workers(1, other, "--model-name", "demo")


def test_an_ingress_without_workers(pool: Fleet) -> None:
    ingress = pool.ingress()
    status, _, body = get(f"{ingress.url}/health")
    assert (status, body["status"], body["reason"]) == (503, "unavailable", "no instances")
    answer = one(ingress.url)
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    [worker] = pool.workers(1)
    wait_until(lambda: get(f"{ingress.url}/health")[0] == 200)
    assert one(ingress.url).error == ""
    worker.close()
    wait_until(lambda: get(f"{ingress.url}/health")[0] == 503)
    assert one(ingress.url).headers["retry-after"] == "1"
