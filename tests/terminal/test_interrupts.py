import asyncio
import os
import signal

import pytest

from dynemo.terminal.interrupts import Interrupted, until_signal


def interrupt(number: int) -> None:
    os.kill(os.getpid(), number)


def test_returns_the_result_of_the_work() -> None:
    async def work() -> int:
        return 7

    assert asyncio.run(until_signal(work(), signal.SIGINT)) == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_work_after_its_clean_up(number: int) -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            interrupt(number)
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.01)
            steps.append("cleaned up")

    with pytest.raises(Interrupted) as caught:
        asyncio.run(until_signal(work(), signal.SIGINT, signal.SIGTERM))
    assert caught.value.exit_code == 128 + number
    assert steps == ["cleaned up"]


def test_the_earlier_signal_handler_is_restored() -> None:
    async def main() -> None:
        before = signal.getsignal(signal.SIGINT)
        await until_signal(asyncio.sleep(0), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is before
        interrupt(signal.SIGINT)
        await asyncio.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


def test_cancelling_the_caller_is_no_signal() -> None:
    ended: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            ended.append(True)

    async def main() -> None:
        task = asyncio.create_task(until_signal(work(), signal.SIGINT))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert ended == [True]
