"""`dynemo-run ps`, with instances that are registered in a folder but do not run."""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from msgspec import msgpack

from dynemo.messages.records import InstanceRecord
from dynemo.planes.discovery.backends import forms
from dynemo.planes.discovery.base import instance_key
from dynemo.planes.discovery.file import open_file
from dynemo.planes.names import EndpointName
from support.command import COMMAND, run
from support.records import make_instance, make_record


def record(
    name: str,
    model: str = "llama",
    started: float = 0.0,
    namespace: str = "dynemo",
    identity: str = "ab",
    loopback: str = "127.0.0.1:1",
) -> InstanceRecord:
    return make_record(
        make_instance(
            name, engine="echo", version="0.1", device="cpu", context_length=4096, slots=8
        ),
        namespace=namespace,
        model=model,
        identity=identity,
        card="cd",
        loopback=loopback,
        started=started or time.time(),
        pid=4711,
    )


@contextmanager
def registered(folder: Path, values: dict[str, bytes]) -> Iterator[None]:
    """Registers the values in another thread, like another process."""
    ready, stop = Event(), Event()

    async def hold() -> None:
        async with open_file(folder, lease_ttl=10) as discovery:
            await discovery.put_blob(b"x" * 100)
            for key, value in values.items():
                await discovery.put(key, value)
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = Thread(target=lambda: asyncio.run(hold()))
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        stop.set()
        thread.join(10)


def keys(*records: InstanceRecord) -> dict[str, bytes]:
    return {
        instance_key(
            EndpointName(found.namespace, found.component, found.endpoint), found.instance.id
        ): msgpack.encode(found)
        for found in records
    }


def environment(folder: Path) -> dict[str, str]:
    return {"DYNEMO_DISCOVERY": f"file:{folder}", "NATS_SERVER": "nats://127.0.0.1:1"}


def ps(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return run("ps", *words, stdin="", timeout=15, **environment(folder))


def test_a_table_of_all_namespaces(tmp_path: Path) -> None:
    two_hours = time.time() - 2.5 * 3600
    found = keys(
        record("i1", started=two_hours), record("i2", "evil\x1b[2J"), record("i3", namespace="b")
    )
    with registered(tmp_path, {**found, "/dynemo/b/instances/pool/generate/bad": b"\xc1"}):
        done = ps(tmp_path)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    columns = "NAME MODEL INSTANCE ENGINE VERSION DEVICE RUNNING WAITING KV SLOTS CONTEXT AGE"
    assert head.split() == columns.split()
    cells = [row.split() for row in rows]
    assert [row[2] for row in cells] == ["i3", "i2", "i1"]
    assert cells[0][0] == "dyn://b/pool/generate"
    assert cells[1][0] == cells[2][0] == "dyn://pool"
    assert cells[1][1] == "evil?[2J"
    assert cells[2][3:] == ["echo", "0.1", "cpu", "-", "-", "-", "8", "4096", "2h"]
    assert "does not decode" in done.stderr


def test_json_is_one_document(tmp_path: Path) -> None:
    with registered(tmp_path, keys(record("i1"))):
        done = ps(tmp_path, "--json")
    assert done.stderr == ""
    (entry,) = json.loads(done.stdout)["instances"]
    assert entry["instance"] == "i1"
    assert entry["namespace"] == "dynemo"
    assert entry["pid"] == 4711
    assert 0 <= entry["age_seconds"] < 15
    assert entry["load"] is None


def test_loads_are_not_known_without_the_server_to_ask_over(tmp_path: Path) -> None:
    with registered(tmp_path, keys(record("i1", loopback=""))):
        done = ps(tmp_path)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    (said,) = done.stderr.splitlines()
    assert "Some loads are unknown. No NATS server answers at nats://127.0.0.1:1" in said


def test_different_cards_are_reported(tmp_path: Path) -> None:
    same = keys(record("i1"), record("i2"), record("i3", namespace="b", identity="cd"))
    with registered(tmp_path, same):
        assert "different cards" not in ps(tmp_path).stderr
    with registered(tmp_path, keys(record("i1"), record("i2", identity="cd"))):
        done = ps(tmp_path, "--json")
    assert "Instances of llama in dynemo have different cards" in done.stderr
    assert [each["identity"] for each in json.loads(done.stdout)["instances"]] == ["ab", "cd"]


def test_nothing_is_registered(tmp_path: Path) -> None:
    done = ps(tmp_path)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    assert json.loads(ps(tmp_path, "--json").stdout) == {"instances": []}


def test_watch_shows_a_new_instance(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "ps", "--json", "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | environment(tmp_path),
    )
    assert process.stdout is not None
    with process, process.stdout as lines:
        try:
            assert json.loads(lines.readline()) == {"instances": []}
            with registered(tmp_path, keys(record("i1"))):
                while not (found := json.loads(lines.readline())["instances"]):
                    pass  # `ps` read the folder before the registration
            assert [entry["instance"] for entry in found] == ["i1"]
            while json.loads(lines.readline())["instances"]:  # until the instance has gone
                pass
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
        finally:
            process.kill()


def test_no_server_is_one_sentence() -> None:
    done = run("ps", "--etcd", "127.0.0.1:1")
    assert done.returncode == 2
    assert "127.0.0.1:1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_wrong_setting_is_refused() -> None:
    done = run("ps", "--discovery", "nowhere")
    assert done.returncode == 2
    assert f'--discovery takes {forms()}, not "nowhere".' in done.stderr
