"""Keeps the prompts of API keys apart in llama.cpp's slots.

A slot keeps the tokens of its last sequence, and the next prompt reuses the part that is equal. The
server chooses the slot with the longest such part, for any client: its cache has no salt. So once
requests have salts, the slots are chosen here, and a slot is reused only for the salt that it
holds.

The server also moves tokens between the slots and a second cache (`--cache-ram`), even into a slot
that a request names. A run with API keys turns that cache off. A worker may have it, because it
does not know of keys; its requests with salts then reuse nothing.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from dynemo.messages.request import Request

#: A slot is reused for a prompt if it holds at least this part of it. Else the slot that was idle
#: for longest is taken, so that a conversation does not lose its slot to an unrelated prompt.
_SIMILAR = 0.1


@dataclass(slots=True)
class Slot:
    number: int = -1  #: -1: the server's choice
    has_cache: bool = True  #: its tokens may be reused
    is_done: bool = False  #: set when the sequence has ended: the slot holds its tokens


@dataclass(frozen=True, slots=True)
class _Held:
    salt: str | None  #: None: unknown
    tokens: list[int]


class Slots:
    """Gives each slot to one request at a time."""

    def __init__(self, count: int, *, has_shared_cache: bool) -> None:
        self._has_shared_cache = has_shared_cache
        self._room = asyncio.Semaphore(count)
        # By slot; the one that has been idle for longest comes first.
        self._idle = dict.fromkeys(range(count), _Held("", []))
        self._is_salted = False

    @asynccontextmanager
    async def slot(self, request: Request) -> AsyncIterator[Slot]:
        """The slot for a request; waits while all are in use."""
        self._is_salted = self._is_salted or bool(request.cache_salt)
        if not self._is_salted or self._has_shared_cache:
            yield Slot(has_cache=not self._is_salted)
            return
        async with self._room:
            slot = self._choose(request)
            try:
                yield slot
            finally:
                salt = request.cache_salt if slot.is_done else None
                self._idle[slot.number] = _Held(salt, request.token_ids)

    def _choose(self, request: Request) -> Slot:
        ids, salt = request.token_ids, request.cache_salt
        common = {
            number: _common(held.tokens, ids)
            for number, held in self._idle.items()
            if held.salt == salt
        }
        best = max(common, key=lambda number: common[number], default=-1)
        if best < 0 or common[best] < _SIMILAR * len(ids):
            best = next(iter(self._idle))
        held = self._idle.pop(best)
        return Slot(best, has_cache=held.salt == salt)


def _common(first: list[int], second: list[int]) -> int:
    """The number of tokens with which both begin."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
