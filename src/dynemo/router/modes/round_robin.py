"""`round-robin`: one instance after the other."""

import random
from collections import OrderedDict
from collections.abc import Collection, Sequence

from dynemo.messages.records import Load


def make(_generator: random.Random) -> "RoundRobin":
    return RoundRobin()


class RoundRobin:
    """Chooses the instances in turn. An excluded instance keeps its turn for the next request."""

    def __init__(self) -> None:
        self._turns: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._turns)

    def add(self, instance_id: str) -> None:
        self._turns.setdefault(instance_id)

    def remove(self, instance_id: str) -> None:
        self._turns.pop(instance_id, None)

    def choose(self, _token_ids: Sequence[int], /, exclude: Collection[str] = ()) -> str | None:
        chosen = next((name for name in self._turns if name not in exclude), None)
        if chosen is not None:
            self._turns.move_to_end(chosen)
        return chosen

    def started(self, _instance_id: str, _token_ids: Sequence[int], /) -> None: ...

    def ended(self, instance_id: str) -> None: ...

    def reported(self, instance_id: str, load: Load) -> None: ...
