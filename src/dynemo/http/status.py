"""A port for health and metrics alone: a worker's status port, or the metrics port of a server."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dynemo.http.app import App
from dynemo.http.bound_server import BoundServer
from dynemo.http.server import serve

log = logging.getLogger("dynemo.http")

_GRACE = 0.5


@asynccontextmanager
async def status_port(app: App, server: BoundServer, stop: asyncio.Event) -> AsyncIterator[None]:
    """Open while entered; `/health` says `draining` once `stop` is set. Closes its listener."""
    over = asyncio.Event()

    async def drain() -> None:
        await stop.wait()
        app.drain()

    draining = asyncio.create_task(drain(), name="status draining")
    serving = asyncio.create_task(
        serve(app, listener=server.listener, grace=_GRACE, stop=over), name="status port"
    )
    serving.add_done_callback(_log_failure)
    try:
        yield
    finally:
        over.set()
        draining.cancel()
        await asyncio.wait([serving, draining])


def _log_failure(task: "asyncio.Task[None]") -> None:
    """The process continues without the port."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("The status port has failed.", exc_info=error)
