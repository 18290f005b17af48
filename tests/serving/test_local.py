"""The lifetime of an engine host, with the real host and the echo engine."""

import asyncio
import os
import signal
import sys
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import structs

from dynemo.errors import EngineLost, EngineNotLoaded, EngineStalled, Unavailable, UsageError
from dynemo.messages.request import Request, Sampling
from dynemo.messages.spec import EngineSpec
from dynemo.serving.local import watchdog as module
from dynemo.serving.local.child import Child, discard, spawn
from dynemo.serving.local.instance import LocalInstance, local_instance
from support import echo_with_faults

ECHO = EngineSpec(engine="echo", model="", workdir="")
LONG = Request(id="r", token_ids=list(range(5000)), prompt="", max_tokens=5000, sampling=Sampling())


class Spawner:
    """Starts echo hosts and remembers them. The first `failures` starts fail."""

    def __init__(self, failures: int = 0) -> None:
        self.children: list[Child] = []
        self.failures = failures

    def __call__(self) -> Child:
        if self.failures:
            self.failures -= 1
            raise OSError(24, "Too many open files")
        self.children.append(spawn(ECHO))
        return self.children[-1]


def _is_gone(child: Child) -> bool:
    return child.process.returncode is not None and not child.workdir.exists()


async def _back(local: LocalInstance, seconds: float = 10) -> None:
    for _ in range(int(seconds / 0.02)):
        if local.instance is not None:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(local.trouble)


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.1])
def test_leaving_before_it_has_loaded_ends_the_child(delay: float) -> None:
    spawner = Spawner()

    async def body() -> None:
        async with local_instance(spawner(), spawner):
            await asyncio.sleep(delay)

    asyncio.run(body())
    assert _is_gone(spawner.children[0])


def test_a_wait_for_it_that_is_cancelled_still_ends_the_child() -> None:
    spawner = Spawner()

    async def body() -> None:
        async with local_instance(spawner(), spawner) as (_, ready):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(ready), 0.001)

    asyncio.run(body())
    assert _is_gone(spawner.children[0])


def test_a_killed_host_breaks_its_streams_and_is_started_again() -> None:
    spawner = Spawner()

    async def body() -> None:
        async with local_instance(spawner(), spawner) as (local, ready):
            await ready
            spawner.failures = 2  # the first restarts fail
            async with aclosing(local.generate(LONG)) as deltas:
                await anext(deltas)
                os.kill(spawner.children[0].process.pid, signal.SIGKILL)
                with pytest.raises(EngineLost):
                    async for _ in deltas:
                        pass
            while "SIGKILL" not in local.trouble:  # noqa: ASYNC110 (no event)
                await asyncio.sleep(0.01)
            with pytest.raises(Unavailable, match=r"SIGKILL.*Restarting it\.$"):
                local.generate(LONG)
            await _back(local)

    asyncio.run(body())
    assert len(spawner.children) == 2
    assert all(map(_is_gone, spawner.children))


def test_a_host_that_falls_silent_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    # A second without an answer is enough: under less the test would fail on a busy machine.
    monkeypatch.setattr(module, "TICK", 0.5)
    spawner = Spawner()

    async def body() -> None:
        async with local_instance(spawner(), spawner) as (local, ready):
            await ready
            first = spawner.children[0].process.pid
            async with aclosing(local.generate(LONG)) as deltas:
                await anext(deltas)
                os.kill(first, signal.SIGSTOP)
                with pytest.raises(EngineStalled, match="is stopped"):
                    async for _ in deltas:
                        pass
            while local.instance is not None:  # noqa: ASYNC110 (no event)
                await asyncio.sleep(0.02)
            assert local.trouble != "loading"
            await _back(local)

    asyncio.run(body())
    assert all(map(_is_gone, spawner.children))


@pytest.mark.parametrize("text", ["block", "hang"])
def test_an_engine_that_makes_no_progress_is_ended(text: str) -> None:
    spec = EngineSpec(engine="own", argument=echo_with_faults.__file__, model="", workdir="")
    request = structs.replace(LONG, token_ids=[1, 2, 3], prompt=text)

    async def body() -> None:
        async with local_instance(spawn(spec), lambda: spawn(spec), 1.5) as (local, ready):
            await ready
            async with aclosing(local.generate(request)) as deltas:
                with pytest.raises(EngineStalled, match="no progress"):
                    async for _ in deltas:
                        pass
            assert "no progress" in local.trouble
            assert local.stalls == 1
            await _back(local)
            short = structs.replace(request, prompt="")
            async with aclosing(local.generate(short)) as deltas:
                assert [delta async for delta in deltas][-1].finish

    asyncio.run(body())


def test_an_engine_that_works_for_one_stream_is_not_stuck() -> None:
    """A stream may wait in the engine's queue for as long as others get tokens."""
    spec = EngineSpec(engine="own", argument=echo_with_faults.__file__, model="", workdir="")
    waits = structs.replace(LONG, token_ids=[1, 2, 3], prompt="hang")
    works = structs.replace(LONG, token_ids=list(range(200)))

    async def body() -> None:
        async with local_instance(spawn(spec), None, 1.5) as (local, ready):
            await ready
            async with aclosing(local.generate(waits)) as waiting:
                await anext(waiting)
                async with aclosing(local.generate(works)) as deltas:
                    assert [delta async for delta in deltas][-1].finish
                assert local.stalls == 0

    asyncio.run(body())


def test_a_host_that_cannot_start_says_why() -> None:
    spec = EngineSpec(engine="echo", model="", workdir="", options=["--nope"])

    async def body() -> None:
        async with local_instance(spawn(spec), lambda: spawn(spec)) as (_, ready):
            await ready

    with pytest.raises(UsageError, match="--nope"):
        asyncio.run(body())


def test_an_engine_s_settings_are_not_on_its_command_line() -> None:
    extra = {"hf_token": "secret-of-the-user", "filler": "x" * 300_000}
    child = spawn(structs.replace(ECHO, extra=extra))
    try:
        words = Path(f"/proc/{child.process.pid}/cmdline").read_bytes()
        assert b"secret" not in words
        assert child.workdir.stat().st_mode & 0o077 == 0
    finally:
        discard(child)


@pytest.mark.parametrize("extra", [{}, {"file": "\udcff"}], ids=["no program", "no UTF-8"])
def test_a_host_that_is_not_started_leaves_nothing(
    extra: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = os.listdir("/proc/self/fd")
    with pytest.raises((OSError, UsageError)):
        spawn(structs.replace(ECHO, extra=extra), str(tmp_path / "no-python"))
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == len(before)


class SlowlyEnding:
    """A process that lives for a while after SIGKILL, like a process with much memory."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self._looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)

    def poll(self) -> int | None:
        code: int | None = self._process.poll()
        self._looks += code is not None
        return code if self._looks > 20 else None

    def wait(self) -> int:
        assert self._looks > 20, "it would block the event loop"
        return int(self._process.wait())


def test_the_event_loop_runs_while_a_killed_host_still_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TICK", 0.05)
    spawned = spawn(ECHO)
    child = Child(cast(Any, SlowlyEnding(spawned.process)), spawned.sock, spawned.workdir)

    async def body() -> None:
        async with local_instance(child, None) as (local, ready):
            await ready
            os.kill(child.process.pid, signal.SIGSTOP)
            await local.ended

    with pytest.raises(EngineLost, match="has not answered"):
        asyncio.run(body())
    assert not child.workdir.exists()


def _program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


async def _load(python: str) -> None:
    async with local_instance(spawn(ECHO, python), lambda: spawn(ECHO, python)) as (_, ready):
        await ready


def test_the_error_of_a_python_without_the_engine_is_shown(tmp_path: Path) -> None:
    python = _program(tmp_path / "python", f'exec {sys.executable} -S "$@"')
    with pytest.raises(EngineNotLoaded, match="No module named 'msgspec'"):
        asyncio.run(_load(python))


def test_a_host_that_ends_slowly_is_not_killed(tmp_path: Path) -> None:
    """Otherwise the message would say that it was killed. Its socket closes first."""
    script = (
        "import os, sys, time; os.close(int(sys.argv[-1])); time.sleep(0.5); sys.exit('no luck')"
    )
    python = _program(tmp_path / "python", f'exec {sys.executable} -c "{script}" "$@"')
    with pytest.raises(EngineNotLoaded, match="exit code 1: no luck"):
        asyncio.run(_load(python))


def test_the_exception_of_an_engine_s_child_process_is_shown(tmp_path: Path) -> None:
    long = "x" * 1000
    python = _program(
        tmp_path / "python",
        f"""cat <<'END'
[2026-11-24 12:00:00 TP0] Scheduler hit an exception: Traceback (most recent call last):
  File "scheduler.py", line 6362, in run_scheduler_process
torch.OutOfMemoryError: tried to allocate 3 GiB {long}

[2026-11-24 12:00:00] Received sigquit from a child process.
END
kill -KILL $$""",
    )
    with pytest.raises(EngineNotLoaded) as caught:
        asyncio.run(_load(python))
    said = str(caught.value)
    assert "SIGKILL: torch.OutOfMemoryError: tried to allocate 3 GiB xxx" in said
    assert len(said) < 400
    assert "\n" not in said


def test_leaving_in_the_turn_in_which_the_host_dies_does_not_hang() -> None:
    spawner = Spawner()

    async def body() -> None:
        async with local_instance(spawner(), spawner) as (local, ready):
            await ready
            async with aclosing(local.generate(LONG)) as deltas:
                await anext(deltas)
                os.kill(spawner.children[0].process.pid, signal.SIGKILL)
                async for _ in deltas:
                    pass

    with pytest.raises(EngineLost):
        asyncio.run(asyncio.wait_for(body(), 10))
    assert all(map(_is_gone, spawner.children))


def test_a_bug_in_the_restart_ends_the_wait_for_the_engine() -> None:
    """After it nothing restarts the engine, so the run would wait forever."""

    def broken() -> Child:
        raise ZeroDivisionError("a mistake")

    child = spawn(ECHO)

    async def body() -> None:
        async with local_instance(child, broken) as (local, ready):
            await ready
            os.kill(child.process.pid, signal.SIGKILL)
            async with asyncio.timeout(10):
                await local.ended

    with pytest.raises(ZeroDivisionError, match="a mistake"):
        asyncio.run(body())
    assert _is_gone(child)
