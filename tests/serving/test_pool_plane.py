"""Requests while the request plane is away."""

import asyncio
import time

import pytest

from dynemo.errors import PlaneAway
from dynemo.router.router import make_router
from dynemo.serving.migration import TextCodec
from dynemo.serving.pool import Pool
from support.planes_world import World, collect, make_request


def test_requests_wait_for_the_plane_and_their_number_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dynemo.serving.away.PLANE_WAITING", 3)

    async def body() -> None:
        world = World("memory")
        async with world.ingress() as ingress, world.worker() as worker:
            pool = Pool(make_router("random"), TextCodec(lambda _: [], lambda _: ""), 3)
            pool.add(ingress.remote(worker.record))
            world.memory.is_away = True
            asked = [asyncio.create_task(collect(pool.generate(make_request(1, 3))))]
            asked += [asyncio.create_task(collect(pool.generate(make_request(1, 3)))) for _ in "ab"]
            await asyncio.sleep(0.3)
            with pytest.raises(PlaneAway):
                await collect(pool.generate(make_request(1, 3)))
            assert not any(task.done() for task in asked)
            world.memory.is_away = False
            assert await asyncio.gather(*asked) == [[1, 2, 3]] * 3

    asyncio.run(body())


@pytest.mark.parametrize("has_deadline", [True, False])
def test_a_request_waits_until_its_deadline(
    monkeypatch: pytest.MonkeyPatch, has_deadline: bool
) -> None:
    monkeypatch.setattr("dynemo.serving.away.PLANE_SECONDS", 60 if has_deadline else 0.5)

    async def body() -> None:
        world = World("memory")
        async with world.ingress() as ingress, world.worker() as worker:
            pool = Pool(make_router("random"), TextCodec(lambda _: [], lambda _: ""), 3)
            pool.add(ingress.remote(worker.record))
            world.memory.is_away = True
            began = time.monotonic()
            deadline = asyncio.get_running_loop().time() + 0.5 if has_deadline else None
            with pytest.raises(PlaneAway):
                await collect(pool.generate(make_request(1, 3), deadline=deadline))
            assert 0.4 < time.monotonic() - began < 5

    asyncio.run(body())
