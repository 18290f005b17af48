"""How far a batch is, on standard error: a bar for a person, a line now and then for a log."""

import asyncio
import sys

from dynemo.terminal.log_lines import log_above
from dynemo.terminal.summary import BatchCounts, status

#: Seconds between two updates of the bar, and of the plain lines.
BAR_SECONDS = 0.2
LINE_SECONDS = 10.0


async def show(tally: BatchCounts) -> None:
    """Show `tally` until cancelled."""
    if sys.stderr.isatty():
        await _bar(tally)
    while True:
        await asyncio.sleep(LINE_SECONDS)
        print(status(tally), file=sys.stderr, flush=True)


async def _bar(tally: BatchCounts) -> None:
    # rich is slow to import and of no use to a log.
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
