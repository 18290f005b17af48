"""`random`: each instance with the same chance."""

import random
from collections.abc import Callable, Collection, Sequence

from dynemo.messages.records import Load
from dynemo.router.fleet import Fleet, Member


def make(generator: random.Random) -> "Random":
    return Random(generator.random)


class Random:
    """Chooses each instance with equal probability."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._fleet = Fleet(draw)

    def __len__(self) -> int:
        return len(self._fleet)

    def add(self, instance_id: str) -> None:
        self._fleet.add(instance_id)

    def remove(self, instance_id: str) -> None:
        self._fleet.remove(instance_id)

    def choose(self, token_ids: Sequence[int], /, exclude: Collection[str] = ()) -> str | None:
        member = self._pick(token_ids, exclude)
        return None if member is None else member.id

    def _pick(self, _token_ids: Sequence[int], exclude: Collection[str]) -> Member | None:
        return self._fleet.random(exclude)

    def started(self, instance_id: str, _token_ids: Sequence[int], /) -> None:
        self._fleet.started(instance_id)

    def ended(self, instance_id: str) -> None:
        self._fleet.ended(instance_id)

    def reported(self, instance_id: str, load: Load) -> None:
        self._fleet.reported(instance_id, load)
