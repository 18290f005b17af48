"""A batch of prompts from a file (`in=batch:FILE`).

The input has one JSON object a line: `text` or `messages`, and if wanted `model`, sampling fields
and an `id` or `custom_id`. The output has one line for each of them, in input order; blank lines
of the input are no lines. A line that is wrong, or that the engine cannot answer, has an `error`.
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
from dynemo.messages.ask import Ask, set_fields
from dynemo.serving.pipeline import Job, Pipeline
from dynemo.terminal.batch import file as files
from dynemo.terminal.batch.file import InputLine
from dynemo.terminal.batch.line import OutputLine, answered, complete, failed, key_of, parse
from dynemo.terminal.interrupts import Interrupted, until_signal
from dynemo.terminal.progress import show
from dynemo.terminal.reply import Reply
from dynemo.terminal.screen import count
from dynemo.terminal.summary import BatchCounts, summary
from dynemo.terminal.until_ready import until_ready

#: Lines in work at once, where the engine does not say how many it computes at once.
CONCURRENCY = 8
#: Lines read from the oldest unanswered one on, for each line in work.
AHEAD = 4
#: How often a line is asked that takes the engine down with it each time.
TRIES = 3
#: Seconds without a model that can answer, after which the batch stops.
PATIENCE = 300.0


@dataclass(frozen=True)
class BatchRun:
    """What all lines of one batch share."""

    pipeline: Pipeline
    model: str
    system: str | None
    settings: Ask
    tally: BatchCounts = field(default_factory=BatchCounts)
    #: Held by a line that is asked again after the engine was lost under it.
    suspect: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def setup(self) -> bytes:
        """Whatever shapes the answers besides the lines themselves."""
        # The empty list keeps the hashes of release 0.1, so that its unfinished batches resume.
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
    """Answer the lines of `source` into `output` and return the exit code.

    `output` None means beside the input (`default_output`). Lines that it holds already are not
    asked again. `concurrency` None means as many as the engine computes at once.

    The code is 0 when every line is answered, 1 when some failed, 128 + its number after SIGINT
    or SIGTERM. Raises UsageError before anything is asked; DynemoError when the model or the
    output is gone for good, with all answers up to there kept.
    """
    if concurrency is not None and concurrency < 1:
        raise UsageError("--concurrency must be 1 or more.")
    output = output or files.default_output(source)
    run = BatchRun(pipeline, model, system, settings)
    tally = run.tally
    tally.total, tally.blank = await asyncio.to_thread(files.count_lines, source)
    if not tally.total:
        raise UsageError(f"The batch {source} has no lines to answer.")
    with files.open_source(source) as file, files.open_output(output, source) as out:
        done, lines = await asyncio.to_thread(
            files.resume, out, files.read_lines(file), run.setup, output
        )
        tally.ok_before, tally.failed_before = done
        if tally.done == tally.total:
            _say(f"{output} is complete. To run again, remove it or name another with --output.")
            return 1 if tally.all_failed else 0
        if tally.done:
            _say(f"Resuming at line {tally.done + 1:,} of {tally.total:,}.")
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

    def tell_stopped() -> None:
        # Answers that waited for one before them are not in the output; they are asked again.
        _say(*summary(run.tally))
        _say(f"Stopped with {count(kept, 'line')} in {output}. Run the same again to go on.")

    try:
        await until_signal(work(), signal.SIGINT, signal.SIGTERM)
    except Interrupted as stop:
        tell_stopped()
        return stop.exit_code
    except DynemoError:
        tell_stopped()
        raise
    _say(*summary(run.tally), f"The answers are in {output}.")
    return 1 if run.tally.all_failed else 0


async def _slots(run: BatchRun) -> int:
    """How many lines the model computes at once, as soon as it can say."""
    if trouble := run.pipeline.trouble:
        await until_ready(run.pipeline, Unavailable(trouble), seconds=PATIENCE)
    served = run.pipeline.models.get(run.model)
    instance = served.backend.instance if served else None
    return instance.slots if instance else CONCURRENCY


async def _answer_all(
    run: BatchRun, lines: Iterator[InputLine], at_once: int, put: Callable[[OutputLine], None]
) -> None:
    """`put` every line's record in order, each as soon as all before it are there."""
    limit = asyncio.Semaphore(at_once)
    # Whatever the size of the batch: one task for each line from the oldest unanswered one on, and
    # no more than this many. We always wait for that oldest one, and write it once it is there.
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
    """The record of one line. Raises Unavailable when the whole batch cannot go on."""
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
    """Ask until there is an answer. A line under which the engine was lost is asked again alone
    among its like, so that one line that kills engines does not use up the tries of the others."""
    losses = 0
    waits_since: float | None = None
    async with AsyncExitStack() as alone:
        while True:
            try:
                job = run.pipeline.prepare(ask)
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
                if monotonic() - waits_since > PATIENCE:
                    raise
                await until_ready(run.pipeline, error, seconds=PATIENCE)


async def _listen(run: BatchRun, job: Job) -> Reply:
    reply = Reply()
    try:
        async with aclosing(run.pipeline.run(job)) as batches:
            async for pieces in batches:
                run.tally.tokens_out += reply.take(pieces)
    except BaseException:
        # Tokens of an answer that never was do not count as output.
        run.tally.tokens_out -= reply.tokens
        raise
    return reply


def _say(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr, flush=True)
