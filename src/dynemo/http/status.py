"""The status port of a process that takes its requests from elsewhere."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dynemo.http.app import build_status_app
from dynemo.http.server import serve
from dynemo.metrics import WorkerMetrics
from dynemo.serving.pipeline import Pipeline

log = logging.getLogger("dynemo.http")

_GRACE = 0.5


@asynccontextmanager
async def status_port(
    pipeline: Pipeline, metrics: WorkerMetrics, listener: socket.socket, stop: asyncio.Event
) -> AsyncIterator[None]:
    """Open while entered; `/health` says `draining` once `stop` is set. Closes `listener`."""
    app = build_status_app(pipeline, metrics)
    over = asyncio.Event()

    async def drain() -> None:
        await stop.wait()
        app.drain()

    draining = asyncio.create_task(drain(), name="status draining")
    serving = asyncio.create_task(
        serve(app, listener=listener, grace=_GRACE, stop=over), name="status port"
    )
    serving.add_done_callback(_tell)
    try:
        yield
    finally:
        over.set()
        draining.cancel()
        await asyncio.wait([serving, draining])


def _tell(task: "asyncio.Task[None]") -> None:
    """Whoever works here goes on without it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the status port has ended", exc_info=error)
