"""Answers a batch of prompts from a file (`in=batch:FILE`).

The input has one JSON object per line: `text` or `messages`, and optionally `model`, sampling
fields and an `id` or `custom_id`. The output has one line for each, in input order. Blank lines of
the input are skipped. A line that is invalid, or that the engine cannot answer, gets an `error`.
"""

import asyncio
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from time import monotonic

import msgspec

from dynemo.errors import DynemoError, EngineLost, RequestError, Unavailable, UsageError
from dynemo.interrupt import hangups
from dynemo.messages.ask import Ask, set_fields
from dynemo.serving.pipeline import Job, Pipeline
from dynemo.spelling import visible
from dynemo.terminal.batch import file as files
from dynemo.terminal.batch.file import InputLine
from dynemo.terminal.batch.line import OutputLine, answered, complete, failed, key_of, parse
from dynemo.terminal.interrupts import Interrupted, until_signal
from dynemo.terminal.progress import show
from dynemo.terminal.reply import Reply
from dynemo.terminal.screen import count
from dynemo.terminal.summary import BatchCounts, summary
from dynemo.terminal.until_ready import until_ready

#: How many lines run at the same time if the engine does not tell its slots.
CONCURRENCY = 8
#: How far to read ahead of the oldest unanswered line, for each running line.
AHEAD = 4
#: How often a line is tried whose engine dies each time.
TRIES = 3
#: Stop the batch after this many seconds without a model that can answer.
READY_SECONDS = 300.0


@dataclass(frozen=True)
class BatchRun:
    """The state that all lines of one batch share."""

    pipeline: Pipeline
    model: str
    system: str | None
    settings: Ask
    tally: BatchCounts = field(default_factory=BatchCounts)
    #: Held by a line that is tried again after its engine died.
    suspect: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def setup(self) -> bytes:
        """Everything that affects the answers, apart from the lines."""
        # The empty list keeps the hashes of release 0.1, so that its unfinished batches can be
        # resumed.
        settings = {"messages": [], **set_fields(self.settings)}
        return msgspec.json.encode([self.model, self.system, settings], order="sorted")


async def batch(
    pipeline: Pipeline,
    *,
    model: str,
    system: str | None,
    settings: Ask,
    source: Path,
    output: Path | None,
    concurrency: int | None,
) -> int:
    """Answers the lines of `source`, writes them to `output`, and returns the exit code.

    `output` None means a file beside the input (`default_output`). Lines that it already holds are
    skipped. `concurrency` None means as many lines as the engine computes at the same time.

    The exit code is 0 if every line was answered, 1 if some failed, and 128 + signal number after
    SIGINT, SIGTERM or SIGHUP. Raises UsageError before any request. Raises DynemoError if the model
    or the output fails permanently; the answers so far are kept.
    """
    if concurrency is not None and concurrency < 1:
        raise UsageError("--concurrency must be 1 or more.")
    output = output or files.default_output(source)
    run = BatchRun(pipeline, model, system, settings)
    tally = run.tally
    tally.total, tally.blank = await asyncio.to_thread(files.count_lines, source)
    if not tally.total:
        raise UsageError(f'The batch "{source}" has no lines to answer.')
    with files.open_source(source) as file, files.open_output(output, source) as out:
        done, lines = await asyncio.to_thread(
            files.resume, out, files.read_lines(file), run.setup, output
        )
        tally.ok_before, tally.failed_before = done
        if tally.done == tally.total:
            _print_lines(
                f'"{output}" is complete. To run it again, remove it or name another file with '
                "--output."
            )
            return 1 if tally.all_failed else 0
        if tally.done:
            _print_lines(f"Resuming at line {tally.done + 1:,} of {tally.total:,}.")
        return await _run_until_signal(run, lines, concurrency, out, output)


async def _run_until_signal(
    run: BatchRun, lines: Iterator[InputLine], concurrency: int | None, out: FileIO, output: Path
) -> int:
    kept = run.tally.before

    def put(record: OutputLine) -> None:
        nonlocal kept
        files.write(out, record)
        kept += 1

    async def work() -> None:
        at_once = concurrency or await _slots(run)
        run.tally.start()
        await _answer_all(run, lines, at_once, put)

    def report_stop() -> None:
        # Answers that waited for an earlier one are not in the output, and will be requested again.
        _print_lines(*summary(run.tally))
        _print_lines(
            f'Stopped with {count(kept, "line")} in "{output}". To continue, run the same command '
            "again."
        )

    try:
        await until_signal(work(), signal.SIGINT, signal.SIGTERM, *hangups())
    except Interrupted as stop:
        report_stop()
        return stop.exit_code
    except DynemoError:
        report_stop()
        raise
    _print_lines(*summary(run.tally), f'The answers are in "{output}".')
    return 1 if run.tally.all_failed else 0


async def _slots(run: BatchRun) -> int:
    """Returns the number of lines that the model computes at the same time.

    Waits until it is known.
    """
    if trouble := run.pipeline.trouble:
        await until_ready(run.pipeline, Unavailable(trouble), seconds=READY_SECONDS)
    served = run.pipeline.models.get(run.model)
    instance = served.backend.instance if served else None
    return instance.slots if instance else CONCURRENCY


async def _answer_all(
    run: BatchRun, lines: Iterator[InputLine], at_once: int, put: Callable[[OutputLine], None]
) -> None:
    """Answers all lines. `put` gets the records in input order, each as early as possible."""
    limit = asyncio.Semaphore(at_once)
    # Bounded for any size of the batch: there is one task per line from the oldest unanswered line
    # on, up to this number. The loop waits for the oldest line, and writes it when it is answered.
    ahead = AHEAD * at_once
    tasks: deque[asyncio.Task[OutputLine]] = deque()
    try:
        async with asyncio.TaskGroup() as group:
            shown = group.create_task(show(run.tally))
            for line in lines:
                if len(tasks) == ahead:
                    put(await tasks.popleft())
                tasks.append(group.create_task(_answer(run, line, limit)))
            while tasks:
                put(await tasks.popleft())
            shown.cancel()
    except* DynemoError as group_error:
        error = group_error.exceptions[0]
    else:
        return
    raise error


async def _answer(run: BatchRun, line: InputLine, limit: asyncio.Semaphore) -> OutputLine:
    """Returns the record of one line. Raises Unavailable if the whole batch cannot continue."""
    key = key_of(line.number, line.data, run.setup)
    async with limit:
        try:
            if len(line.data) > files.MAX_LINE:
                raise RequestError(f"The line is longer than {files.MAX_LINE:,} bytes.")
            ask = parse(line.data)
            ask = complete(ask, run.settings, model=run.model, system=run.system)
            job, reply = await _ask(run, ask)
        except Unavailable:
            raise
        except DynemoError as error:
            run.tally.failed += 1
            return failed(key, line.data, error)
    run.tally.add(reply, job.prompt_tokens)
    return answered(key, line.data, reply, job.prompt_tokens)


async def _ask(run: BatchRun, ask: Ask) -> tuple[Job, Reply]:
    """Tries until there is an answer.

    A line whose engine died is tried again, but only one such line at a time. So a line that kills
    engines does not use up the tries of others.
    """
    losses = 0
    waits_since: float | None = None
    async with AsyncExitStack() as alone:
        while True:
            try:
                job = await run.pipeline.accept(ask)
                return job, await _listen(run, job)
            except EngineLost:
                losses += 1
                waits_since = None
                if losses == TRIES:
                    raise
                if losses == 1:
                    await alone.enter_async_context(run.suspect)
            except Unavailable as error:
                waits_since = waits_since or monotonic()
                if monotonic() - waits_since > READY_SECONDS:
                    raise
                await until_ready(run.pipeline, error, seconds=READY_SECONDS)


async def _listen(run: BatchRun, job: Job) -> Reply:
    reply = Reply()
    try:
        async with aclosing(run.pipeline.run(job)) as batches:
            async for pieces in batches:
                run.tally.tokens_out += reply.take(pieces)
    except BaseException:
        # Tokens of an unfinished answer do not count as output.
        run.tally.tokens_out -= reply.tokens
        raise
    return reply


def _print_lines(*lines: str) -> None:
    for line in lines:
        print(visible(line), file=sys.stderr, flush=True)
