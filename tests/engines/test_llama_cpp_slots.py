"""The choice of llama.cpp's slots for requests with salts."""

import asyncio

from dynemo.engines.llama_cpp.slots import Slot, Slots
from dynemo.messages.request import Request, Sampling


def make_request(salt: str, ids: list[int]) -> Request:
    return Request(
        id="r", token_ids=ids, prompt="", max_tokens=1, sampling=Sampling(), cache_salt=salt
    )


async def use(slots: Slots, salt: str, ids: list[int], *, is_done: bool = True) -> Slot:
    async with slots.slot(make_request(salt, ids)) as slot:
        slot.is_done = is_done
        return slot


def test_the_server_chooses_until_there_is_a_salt() -> None:
    async def scenario() -> None:
        slots = Slots(2, has_shared_cache=False)
        slot = await use(slots, "", [1])
        assert (slot.number, slot.has_cache) == (-1, True)
        slot = await use(slots, "a", [1])
        assert (slot.number, slot.has_cache) == (0, False)
        slot = await use(slots, "", [1])  # before, the server may have put anything there
        assert (slot.number, slot.has_cache) == (1, True)

    asyncio.run(scenario())


def test_a_slot_is_reused_for_its_salt_alone() -> None:
    async def scenario() -> None:
        slots = Slots(2, has_shared_cache=False)
        first, second = list(range(100)), list(range(1000, 1100))
        assert (await use(slots, "a", first)).number == 0
        assert (await use(slots, "a", second)).number == 1  # `first` keeps its slot
        slot = await use(slots, "a", [*first, 5])
        assert (slot.number, slot.has_cache) == (0, True)
        slot = await use(slots, "a", [*second, 5])
        assert (slot.number, slot.has_cache) == (1, True)
        slot = await use(slots, "b", first)  # takes the slot that was idle for longest
        assert (slot.number, slot.has_cache) == (0, False)
        assert not (await use(slots, "c", second)).has_cache

    asyncio.run(scenario())


def test_a_cache_that_all_slots_share_is_not_used_for_salts() -> None:
    async def scenario() -> None:
        slots = Slots(2, has_shared_cache=True)
        assert (await use(slots, "", [1])).has_cache
        for salt in ("a", "a", ""):
            slot = await use(slots, salt, [1])
            assert (slot.number, slot.has_cache) == (-1, False)

    asyncio.run(scenario())


def test_an_unfinished_request_leaves_a_slot_of_nobody() -> None:
    async def scenario() -> None:
        slots = Slots(1, has_shared_cache=False)
        await use(slots, "a", [1, 2])
        await use(slots, "b", [1, 2], is_done=False)  # it may not have begun
        assert not (await use(slots, "a", [1, 2])).has_cache
        assert (await use(slots, "a", [1, 2])).has_cache

    asyncio.run(scenario())


def test_a_request_waits_while_all_slots_are_in_use() -> None:
    async def scenario() -> None:
        slots = Slots(1, has_shared_cache=False)
        async with slots.slot(make_request("a", [1])):
            waiting = asyncio.create_task(use(slots, "a", [1]))
            cancelled = asyncio.create_task(use(slots, "a", [1]))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            cancelled.cancel()
        assert (await waiting).number == 0
        assert (await use(slots, "a", [1])).number == 0

    asyncio.run(scenario())
