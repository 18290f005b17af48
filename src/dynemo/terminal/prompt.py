"""One prompt (`in=stdin`): standard output holds the answer and nothing else.

On the way from the shell to the first token: imports no library that the pipeline does not.
"""

import os
import signal
import sys
from typing import BinaryIO

from msgspec import structs

from dynemo.errors import DynemoError, RequestError, UsageError
from dynemo.messages.ask import Ask, text_turn
from dynemo.serving.pipeline import Job, Pipeline
from dynemo.terminal.interrupts import Interrupted, until_signal
from dynemo.terminal.output import Output
from dynemo.terminal.reply import Reply, listen
from dynemo.terminal.screen import clean, visible


def read_prompt(source: BinaryIO) -> str:
    """All of `source`. Raises UsageError if that is nothing but white space."""
    if source.isatty():
        print("dynemo-run: type the prompt, then Ctrl-D.", file=sys.stderr)
    text = source.read().decode("utf-8", "replace")
    if not text.strip():
        raise UsageError(
            "Standard input is empty: give the prompt there, as in `echo Hello | dynemo-run`."
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
    """Stream the answer to `text` to `out`, ending it with a newline, and return the exit code.

    0 also when `out` is closed by its reader (`| head -1`), 128 + its number after SIGINT or
    SIGTERM. Raises UsageError for a prompt that the model cannot take, and
    DynemoError for what fails while it runs.
    """
    job = _prepare(pipeline, model, system, settings, text)
    reply = Reply()
    outlet = Output(out.fileno())
    try:
        work = _stream(pipeline, job, reply, outlet, is_shown=out.isatty())
        await until_signal(work, signal.SIGINT, signal.SIGTERM)
    except Interrupted as stop:
        return stop.exit_code
    except BrokenPipeError:
        _forget(out)
        return 0
    except OSError as error:
        raise DynemoError(f"The answer cannot be written: {error.strerror}.") from error
    finally:
        outlet.close()
    if reply.finish is not None and reply.finish.reason == "length":
        print(f"dynemo-run: {_cut_note(job, reply)}", file=sys.stderr)
    return 0


def _prepare(pipeline: Pipeline, model: str, system: str | None, settings: Ask, text: str) -> Job:
    question = clean(text).removesuffix("\n").removesuffix("\r")
    turns = [text_turn("user", question)]
    if system:
        turns.insert(0, text_turn("system", system))
    try:
        return pipeline.prepare(structs.replace(settings, model=model, turns=turns, n=1))
    except RequestError as error:
        raise UsageError(str(error)) from error


async def _stream(
    pipeline: Pipeline, job: Job, reply: Reply, outlet: Output, *, is_shown: bool
) -> None:
    """`is_shown`: the reader is a person at a terminal. A file or a pipe gets the exact text."""
    end = "\n"

    def say(text: str) -> None:
        nonlocal end
        end = "" if text.endswith("\n") else "\n"
        outlet.send((visible(text) if is_shown else text).encode("utf-8", "replace"))

    try:
        await listen(pipeline.run(job), reply, say)
    finally:
        # Also after a Ctrl-C or an error: what the shell or we print next starts on its own line.
        if end and (reply.parts or reply.finish):
            outlet.send(b"\n")
    await outlet.drain()


def _cut_note(job: Job, reply: Reply) -> str:
    if job.prompt_tokens + reply.tokens >= job.model.context_length:
        return (
            f"The answer is cut: the context of {job.model.context_length:,} tokens is full "
            "(--context-length sets it)."
        )
    return f"The answer is cut after {reply.tokens:,} tokens, as max_tokens says."


def _forget(out: BinaryIO) -> None:
    """Nobody reads `out` any more: the interpreter's last flush must not complain about it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, out.fileno())
    os.close(nowhere)
