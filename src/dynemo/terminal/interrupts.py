"""Work that a signal stops: Ctrl-C ends an answer, not the program."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class Interrupted(Exception):
    """One of the signals that were asked for came. No DynemoError: the user wanted it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


async def until_signal(work: Coroutine[Any, Any, T], *signals: int) -> T:
    """What `work` returns. Raises Interrupted if one of `signals` comes first.

    `work` is cancelled by the signal and awaited, so its clean-up is over when this raises; a
    second signal cuts that clean-up short. What the signals did before is put back at the end.
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
            # None stands for a handler that was not set from Python: there is no way to name it.
            if handler is not None:
                signal.signal(number, handler)
