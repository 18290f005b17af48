"""Answers one prompt (`in=stdin`). Standard output holds only the answer.

This module affects the time to the first token, so it imports no library that the pipeline does
not.
"""

import os
import signal
import sys
from typing import BinaryIO

from msgspec import structs

from dynemo.errors import DynemoError, RequestError, UsageError
from dynemo.interrupt import hangups
from dynemo.messages.answer import Piece, TextPiece
from dynemo.messages.ask import Ask, text_turn
from dynemo.serving.pipeline import Job, Pipeline
from dynemo.spelling import quoted, visible
from dynemo.terminal.interrupts import Interrupted, until_signal
from dynemo.terminal.output import Output
from dynemo.terminal.reply import Reply, listen
from dynemo.terminal.screen import clean
from dynemo.terminal.spoken import Spoken


def read_prompt(source: BinaryIO) -> str:
    """Reads all of `source`. Raises UsageError if it holds only white space."""
    if source.isatty():
        print("dynemo-run: Type the prompt, then press Ctrl-D.", file=sys.stderr)
    text = source.read().decode("utf-8", "replace")
    if not text.strip():
        raise UsageError(
            "Standard input is empty. Pass the prompt there, as in `echo Hello | dynemo-run`."
        )
    return text


async def answer(
    pipeline: Pipeline,
    *,
    model: str,
    system: str | None,
    settings: Ask,
    text: str,
    out: BinaryIO,
) -> int:
    """Streams the answer for `text` to `out`, adds a newline, and returns the exit code.

    The code is 0, even if the reader closes `out` (`| head -1`), or 128 + signal number after
    SIGINT, SIGTERM or SIGHUP. Raises UsageError if the model cannot take the prompt, and
    DynemoError for a later failure.
    """
    job = await _prepare(pipeline, model, system, settings, text)
    reply = Reply()
    output = Output(out.fileno())
    try:
        work = _stream(pipeline, job, reply, output, is_shown=out.isatty())
        await until_signal(work, signal.SIGINT, signal.SIGTERM, *hangups())
    except Interrupted as stop:
        return stop.exit_code
    except BrokenPipeError:
        _forget(out)
        return 0
    except OSError as error:
        raise DynemoError(f"The answer cannot be written: {error.strerror}.") from error
    finally:
        output.close()
    if reply.finish is not None and reply.finish.reason == "length":
        note = _cut_note(job, reply)
        print(visible(f"dynemo-run: {note}"), file=sys.stderr)
    if reply.calls and not out.isatty():
        names = ", ".join(quoted(call.name) for call in reply.calls)
        note = f"The answer calls tools, which the output leaves out: {names}."
        print(visible(f"dynemo-run: {note}"), file=sys.stderr)
    return 0


async def _prepare(
    pipeline: Pipeline, model: str, system: str | None, settings: Ask, text: str
) -> Job:
    question = clean(text).removesuffix("\n").removesuffix("\r")
    turns = [text_turn("user", question)]
    if system:
        turns.insert(0, text_turn("system", system))
    try:
        return await pipeline.accept(structs.replace(settings, model=model, turns=turns, n=1))
    except RequestError as error:
        raise UsageError(str(error)) from error


async def _stream(
    pipeline: Pipeline, job: Job, reply: Reply, output: Output, *, is_shown: bool
) -> None:
    """Streams the answer. `is_shown`: to a terminal. A file or a pipe gets its content alone."""
    last = ""

    def send(text: str) -> None:
        output.send(text.encode("utf-8", "replace"))

    def write(piece: Piece) -> None:
        nonlocal last
        if isinstance(piece, TextPiece) and piece.text:
            last = piece.text
            send(piece.text)

    spoken = Spoken(send)
    try:
        await listen(pipeline.run(job), reply, spoken.write if is_shown else write)
    finally:
        # Also after Ctrl-C or an error, so that the next output starts on its own line.
        is_open = spoken.is_line_open if is_shown else not last.endswith("\n")
        if is_open and (reply.parts or reply.finish):
            output.send(b"\n")
    await output.drain()


def _cut_note(job: Job, reply: Reply) -> str:
    if job.prompt_tokens + reply.tokens >= job.model.context_length:
        return (
            f"The answer was cut off: the context of {job.model.context_length:,} tokens is "
            "full. --context-length changes it."
        )
    return f"The answer was cut off after {reply.tokens:,} tokens, the limit of max_tokens."


def _forget(out: BinaryIO) -> None:
    """Redirects `out`, which lost its reader, so that the interpreter can flush it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, out.fileno())
    os.close(nowhere)
