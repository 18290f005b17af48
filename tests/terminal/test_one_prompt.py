import asyncio
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dynemo.errors import EngineLost, UsageError
from dynemo.messages.answer import ArgumentsPiece, ReasoningPiece, ToolCallPiece
from dynemo.messages.ask import Ask, text_turn
from dynemo.terminal.prompt import answer, read_prompt
from support.program import program_environment
from support.scripted_pipeline import ScriptedPipeline


def ask(pipeline: ScriptedPipeline, text: str, path: Path, **more: Any) -> int:
    arguments: dict[str, Any] = {"model": "stub", "system": None, "settings": Ask()}
    with path.open("wb") as out:
        return asyncio.run(answer(pipeline, text=text, out=out, **(arguments | more)))


def test_the_answer_alone_with_a_newline_at_its_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    pipeline = ScriptedPipeline(answer=lambda _ask: ["\x1b[1mGrüße", " 世界"])
    assert ask(pipeline, " Hello \n\n", out, system="Be brief.") == 0
    assert out.read_bytes() == "\x1b[1mGrüße 世界\n".encode()
    assert pipeline.asks[0].turns == [
        text_turn("system", "Be brief."),
        text_turn("user", " Hello \n"),
    ]
    assert capfd.readouterr() == ("", "")


def test_no_second_newline(tmp_path: Path) -> None:
    ask(ScriptedPipeline(answer=lambda _ask: ["a\n"]), "x", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"a\n"


def test_a_pipe_gets_neither_thoughts_nor_calls(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    thought, call = ReasoningPiece(0, "Hmm.", 1), ToolCallPiece(0, 0, "id", "get_weather")
    arguments = ArgumentsPiece(0, 0, "{}", 1)
    pipeline = ScriptedPipeline(answer=lambda _ask: [thought, "Well.", call, arguments])
    assert ask(pipeline, "x", tmp_path / "out") == 0
    assert (tmp_path / "out").read_bytes() == b"Well.\n"
    assert capfd.readouterr().err == (
        'dynemo-run: The answer calls tools, which the output leaves out: "get_weather".\n'
    )


@pytest.mark.parametrize("text", ["", "\n", " \n\t\n"])
def test_an_empty_input_says_what_to_do(text: str) -> None:
    with pytest.raises(UsageError, match="Pass the prompt there"):
        read_prompt(io.BytesIO(text.encode()))


def test_a_prompt_that_does_not_fit_is_a_mistake_of_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="9 tokens"):
        ask(ScriptedPipeline(context_length=8), "w " * 9, tmp_path / "out")


def test_a_cut_answer_is_noted_on_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert ask(ScriptedPipeline(reason="length"), "one two", tmp_path / "out") == 0
    assert capfd.readouterr().err == (
        "dynemo-run: The answer was cut off after 3 tokens, the limit of max_tokens.\n"
    )
    ask(ScriptedPipeline(reason="length", context_length=5), "one two", tmp_path / "out")
    assert "the context of 5 tokens is full" in capfd.readouterr().err


def test_an_error_in_the_answer_leaves_a_whole_line(tmp_path: Path) -> None:
    pipeline = ScriptedPipeline(answer=lambda _ask: ["half", EngineLost("The engine ended.")])
    with pytest.raises(EngineLost):
        ask(pipeline, "x", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"half\n"


def test_a_signal_stops_the_engine_and_gives_its_exit_code(tmp_path: Path) -> None:
    def script(_ask: Ask) -> list[str | float]:
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
        return ["begun ", 30.0]

    pipeline = ScriptedPipeline(answer=script)
    assert ask(pipeline, "x", tmp_path / "out") == 130
    assert (pipeline.running, pipeline.closed_early) == (0, 1)


SCRIPT = """
import asyncio, sys
from support.program import program_environment
from support.scripted_pipeline import ScriptedPipeline
from dynemo.messages.ask import Ask
from dynemo.terminal.prompt import answer
pipeline = ScriptedPipeline(answer=lambda _ask: ["line\\n", 0.01] * 100_000)
code = asyncio.run(answer(
    pipeline, model="stub", system=None, settings=Ask(), text="x", out=sys.stdout.buffer
))
assert pipeline.closed_early == 1 and pipeline.running == 0
sys.exit(code)
"""


def test_a_reader_that_has_enough_ends_it_cleanly() -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=program_environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(10) == 0
