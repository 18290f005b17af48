"""The timeout of a reply counts only the time in which the event loop is not busy."""

import asyncio
import time

import pytest

from dynemo.planes.requests.base import wait_for_reply


def test_time_in_which_the_loop_was_busy_does_not_count() -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[str] = loop.create_future()

        def hop(left: int) -> None:
            time.sleep(0.1)
            if left:
                loop.call_soon(hop, left - 1)
            else:
                reply.set_result("here")

        loop.call_soon(hop, 3)
        assert await wait_for_reply(reply, 0.2) == "here"

    asyncio.run(body())


def test_a_reply_that_does_not_come_is_given_up() -> None:
    async def body() -> None:
        with pytest.raises(TimeoutError):
            await wait_for_reply(asyncio.get_running_loop().create_future(), 0.05)

    asyncio.run(body())


def test_the_error_of_a_reply_is_raised() -> None:
    async def body() -> None:
        reply: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        reply.set_exception(ConnectionError("gone"))
        with pytest.raises(ConnectionError, match="gone"):
            await wait_for_reply(reply, 1)

    asyncio.run(body())
