"""Requests that wait while the request plane is away. Their number is bounded."""

import asyncio

from dynemo.errors import PlaneAway
from dynemo.limits import PLANE_SECONDS, PLANE_WAITING
from dynemo.serving.migration import MigrationState
from dynemo.serving.remote import RemoteInstance

_PAUSE = 0.1  # seconds: the plane may say that it is up, and fail again at once


class PlaneWait:
    """The waiting requests of one model."""

    def __init__(self) -> None:
        self._waiting = 0

    async def wait(
        self, remote: RemoteInstance, error: PlaneAway, progress: MigrationState
    ) -> None:
        """Returns when instances can be asked again. Raises `error` when the request has waited
        long enough, or if many others wait."""
        if self._waiting >= PLANE_WAITING:
            raise error
        self._waiting += 1
        try:
            async with asyncio.timeout_at(progress.away_until(PLANE_SECONDS)):
                await asyncio.sleep(_PAUSE)
                await remote.wait_for_plane()
        except TimeoutError:
            raise error from None
        finally:
            self._waiting -= 1
