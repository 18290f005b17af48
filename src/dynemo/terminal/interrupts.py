"""Stops work on a signal: Ctrl-C ends an answer, not the program."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class Interrupted(Exception):
    """A signal arrived. It is not a DynemoError, because the user wanted it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


async def until_signal(work: Coroutine[Any, Any, T], *signals: int) -> T:
    """Awaits `work` and returns its result. Raises Interrupted if one of `signals` arrives first.

    The signal cancels `work` and waits for its cleanup; a second signal interrupts the cleanup. The
    previous signal handlers are restored at the end.
    """
    came: list[int] = []
    task = asyncio.ensure_future(work)

    def stop(number: int) -> None:
        came.append(number)
        task.cancel()

    with _handling(stop, signals):
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if not came or (caller is not None and caller.cancelling()):
                raise
            raise Interrupted(came[0]) from None


@contextmanager
def _handling(stop: Callable[[int], None], signals: tuple[int, ...]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in signals}
    for number in signals:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            # None means a handler that Python did not set, so it cannot be restored.
            if handler is not None:
                signal.signal(number, handler)
