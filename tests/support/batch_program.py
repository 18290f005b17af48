"""A slow batch, for tests that interrupt it: `batch_program.py SOURCE`."""

import asyncio
import sys
from pathlib import Path

from dynemo.messages.ask import Ask
from dynemo.terminal.batch.run import batch
from support.scripted_pipeline import ScriptedPipeline

run = batch(
    ScriptedPipeline(answer=lambda _ask: ["a ", 0.05, "b"]),
    model="stub",
    system=None,
    settings=Ask(),
    source=Path(sys.argv[1]),
    output=None,
    concurrency=None,
)
sys.exit(asyncio.run(run))
