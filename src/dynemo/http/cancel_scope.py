"""Work that another task can cancel with an error of its choice."""

import asyncio
from types import TracebackType


class CancelScope:
    """`async with scope: work` raises `error` as soon as another task calls `cancel(error)`.

    It works as `asyncio.timeout` does: it cancels the task that runs the work, so that every
    `finally` on the way runs, and turns that one cancellation into the error. Entered once.
    Cancelling before, after or twice does nothing.
    """

    __slots__ = ("_cancelling", "_error", "_task")

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._error: Exception | None = None
        self._cancelling = 0

    def cancel(self, error: Exception) -> None:
        if self._task is not None and self._error is None:
            self._error = error
            self._task.cancel()

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self._error is None or task is None:
            return
        # If another caller has cancelled the task as well, that cancellation continues.
        ours = task.uncancel() <= self._cancelling
        if ours and (kind is None or issubclass(kind, asyncio.CancelledError)):
            raise self._error from error
