import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from dynemo.errors import EngineError, EngineLost, Unavailable, UsageError
from dynemo.messages.ask import Ask
from dynemo.terminal import progress
from dynemo.terminal.batch import run as module
from dynemo.terminal.batch.run import AHEAD, batch
from support.program import program, program_environment
from support.scripted_pipeline import Script, ScriptedPipeline, after, said, words


def put(tmp_path: Path, count: int) -> Path:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f'{{"text": "question {i}", "id": {i}}}\n' for i in range(count)))
    return source


def run(pipeline: ScriptedPipeline, source: Path, **more: Any) -> int:
    settings: dict[str, Any] = {
        "model": "stub",
        "system": None,
        "settings": Ask(),
        "output": None,
        "concurrency": None,
    }
    return asyncio.run(batch(pipeline, source=source, **(settings | more)))


def read(source: Path) -> list[dict[str, Any]]:
    text = source.with_name("in.output.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def jitter(ask: Ask) -> Script:
    return [random.Random(str(ask.turns)).random() / 100, *words(ask)]


def test_one_line_a_line_in_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = put(tmp_path, 50)
    pipeline = ScriptedPipeline(answer=jitter)
    assert run(pipeline, source) == 0
    lines = read(source)
    assert [line["id"] for line in lines] == list(range(50))
    assert [line["response"] for line in lines] == [f"question {i} " for i in range(50)]
    assert set(lines[0]) == {
        "line", "input_hash", "id",
        "response", "finish_reason", "tokens_in", "tokens_out", "elapsed_ms",
    }  # fmt: skip
    assert pipeline.most_running == pipeline.slots
    out, err = capfd.readouterr()
    assert out == ""
    assert "50 of 50 lines done: 50 ok, 0 failed" in err
    assert "100 in, 150 out" in err
    assert err.count("p99") == 2


def test_bad_lines_are_error_lines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b'{"text": "a"}\nnot json\n\n{"text": 5, "id": "x"}\n{"text": "w w w w"}\n')
    assert run(ScriptedPipeline(context_length=4), source) == 1
    first, second, third, fourth = read(source)
    assert first["response"] == "a "
    assert (second["line"], second["error"][:26]) == (2, "The line is not valid JSON")
    assert (third["line"], third["id"], third["error"]) == (
        4, "x", "'text' must be a string.",
    )  # fmt: skip
    assert (fourth["line"], fourth["error"]) == (5, "The prompt has 4 tokens, the context 4.")
    assert "1 ok, 3 failed; 1 blank line skipped" in capfd.readouterr().err


def test_concurrency_is_bounded(tmp_path: Path) -> None:
    pipeline = ScriptedPipeline(answer=jitter)
    assert run(pipeline, put(tmp_path, 30), concurrency=2) == 0
    assert pipeline.most_running == 2
    with pytest.raises(UsageError, match="--concurrency"):
        run(pipeline, put(tmp_path, 1), concurrency=0)


def test_a_slow_line_holds_the_others_back_at_the_window(tmp_path: Path) -> None:
    started: list[int] = []
    begun = asyncio.Event()

    def answer(ask: Ask) -> Script:
        number = int(said(ask.turns[0]).split()[1])
        started.append(number)
        if number == 0:
            begun.set()
            return [0.3, "slow"]
        assert 0 in started
        return words(ask)

    pipeline = ScriptedPipeline(answer=answer)

    async def main() -> None:
        task = asyncio.create_task(
            batch(
                pipeline,
                model="stub",
                system=None,
                settings=Ask(),
                source=put(tmp_path, 100),
                output=None,
                concurrency=2,
            )
        )
        await begun.wait()
        await asyncio.sleep(0.1)
        assert len(started) == AHEAD * 2
        assert await task == 0

    asyncio.run(main())
    assert len(started) == 100


def test_lines_are_written_as_soon_as_all_before_them_are(tmp_path: Path) -> None:
    source = put(tmp_path, 8)
    seen: list[int] = []

    def answer(ask: Ask) -> Script:
        if "question 7" in str(ask.turns):
            seen.append(len(read(source)))
        return [0.01, *words(ask)]

    run(ScriptedPipeline(answer=answer), source, concurrency=1)
    # The previous line may end in the same iteration of the event loop in which this one begins.
    assert seen[0] >= 6


def test_continues_after_an_interruption(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = put(tmp_path, 40)

    def answer(ask: Ask) -> Script:
        if "question 20" in str(ask.turns):
            os.kill(os.getpid(), signal.SIGINT)
            return [10.0]
        return words(ask)

    pipeline = ScriptedPipeline(answer=answer)
    assert run(pipeline, source) == 130
    assert pipeline.running == 0
    done = len(read(source))
    assert 0 < done <= 20
    assert "To continue, run the same command again" in capfd.readouterr().err
    pipeline = ScriptedPipeline()
    assert run(pipeline, source) == 0
    assert [line["id"] for line in read(source)] == list(range(40))
    assert len(pipeline.asks) == 40 - done
    err = capfd.readouterr().err
    assert f"Resuming at line {done + 1} of 40." in err
    assert f"40 of 40 lines done: 40 ok, 0 failed ({done} of them by an earlier run)" in err
    assert run(pipeline, source) == 0
    assert 'in.output.jsonl" is complete' in capfd.readouterr().err
    assert len(pipeline.asks) == 40 - done


def test_another_model_or_setting_is_not_mixed_in(tmp_path: Path) -> None:
    source = put(tmp_path, 3)
    run(ScriptedPipeline(), source)
    changes: list[dict[str, Any]] = [{"model": "other"}, {"system": "s"}, {"settings": Ask(seed=1)}]
    for change in changes:
        with pytest.raises(UsageError, match="is not the output of this batch"):
            run(ScriptedPipeline(), source, **change)


def test_continues_after_a_kill(tmp_path: Path) -> None:
    source = put(tmp_path, 30)
    output = source.with_name("in.output.jsonl")
    environment = program_environment()
    command = [sys.executable, "-W", "error", program("batch_program"), str(source)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        deadline = monotonic() + 10
        while not (output.exists() and output.read_bytes().count(b"\n") > 5):
            assert monotonic() < deadline
            sleep(0.01)
        process.kill()
    before = output.read_bytes()
    with output.open("ab") as file:
        file.write(b'{"line":')
    assert subprocess.run(command, env=environment, check=False, timeout=20).returncode == 0
    assert [line["id"] for line in read(source)] == list(range(30))
    assert output.read_bytes().startswith(before[: before.rindex(b"\n")])


def test_a_line_is_asked_again_after_the_engine_was_lost(tmp_path: Path) -> None:
    source = put(tmp_path, 5)
    pipeline = ScriptedPipeline(
        answer=after(EngineLost("gone"), EngineLost("gone"), Unavailable("loading")),
        troubles=["loading"] * 3,
    )
    assert run(pipeline, source) == 0
    assert [line["response"] for line in read(source)] == [f"question {i} " for i in range(5)]


def test_a_line_that_kills_engines_fails_alone(tmp_path: Path) -> None:
    """Each loss fails all running lines."""
    losses: Counter[str] = Counter()
    running: set[str] = set()
    is_down = asyncio.Event()

    class Fragile(ScriptedPipeline):
        async def run(self, job: Any, cancel_reader: Any = None, place: Any = None) -> Any:
            question = said(self.ask_of(job).turns[0])
            running.add(question)
            try:
                if question == "question 5":
                    await asyncio.sleep(0.01)
                    is_down.set()
                    is_down.clear()
                down = asyncio.ensure_future(is_down.wait())
                done, _ = await asyncio.wait([down], timeout=0.03)
                down.cancel()
                if done or question == "question 5":
                    losses[question] += 1
                    raise EngineLost("The engine ended.")
            finally:
                running.discard(question)
            async for piece in super().run(job):
                yield piece

    source = put(tmp_path, 20)
    assert run(Fragile(), source) == 1
    assert [line["id"] for line in read(source) if "error" in line] == [5]
    assert losses["question 5"] == module.TRIES
    assert all(count == 1 for question, count in losses.items() if question != "question 5")


def test_an_engine_error_is_that_lines_own(tmp_path: Path) -> None:
    source = put(tmp_path, 3)
    assert run(ScriptedPipeline(answer=after(EngineError("no"))), source) == 1
    assert [line.get("error") for line in read(source)] == ["no", None, None]


def test_a_model_that_does_not_come_back_stops_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "READY_SECONDS", 0.1)
    source = put(tmp_path, 30)

    def answer(ask: Ask) -> Script:
        if "question 10" in str(ask.turns):
            pipeline.troubles += ["engine ended: exit code 1"] * 100
            return [Unavailable("down")]
        return words(ask)

    pipeline = ScriptedPipeline(answer=answer)
    with pytest.raises(Unavailable, match="was not ready again within"):
        run(pipeline, source)
    assert 0 < len(read(source)) <= 10
    assert "To continue, run the same command again" in capfd.readouterr().err


def test_an_empty_batch_says_so_and_makes_no_output(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("\n\n")
    with pytest.raises(UsageError, match="no lines to answer"):
        run(ScriptedPipeline(), source)
    assert list(tmp_path.iterdir()) == [source]


def test_a_log_gets_plain_progress_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.03)
    run(ScriptedPipeline(answer=lambda _ask: ["a", 0.05]), put(tmp_path, 12))
    assert " of 12 lines, " in capfd.readouterr().err
