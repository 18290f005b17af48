"""The progress of a batch on standard error: a bar in a terminal, otherwise plain lines."""

import asyncio
import sys

from dynemo.spelling import visible
from dynemo.terminal.log_lines import log_above
from dynemo.terminal.summary import BatchCounts, status

#: Seconds between two updates of the bar, and between two plain lines.
BAR_SECONDS = 0.2
LINE_SECONDS = 10.0


async def show(tally: BatchCounts) -> None:
    """Shows `tally` until it is cancelled."""
    if sys.stderr.isatty():
        await _bar(tally)
    while True:
        await asyncio.sleep(LINE_SECONDS)
        print(visible(status(tally)), file=sys.stderr, flush=True)


async def _bar(tally: BatchCounts) -> None:
    # Imported here because rich is slow to import, and not needed in a log.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, auto_refresh=False, transient=True)
    with bar, log_above():
        task = bar.add_task("", total=tally.total)
        while True:
            bar.update(task, completed=tally.done, description=status(tally), refresh=True)
            await asyncio.sleep(BAR_SECONDS)
