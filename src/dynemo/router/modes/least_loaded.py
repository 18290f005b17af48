"""`least-loaded`: the instance with the fewest requests."""

import random
from collections.abc import Collection, Sequence

from dynemo.router.fleet import Member
from dynemo.router.modes.uniform import Random


def make(generator: random.Random) -> "LeastLoaded":
    return LeastLoaded(generator.random)


class LeastLoaded(Random):
    """Chooses the instance with the fewest requests: this ingress's own, plus the reported ones."""

    def _pick(self, _token_ids: Sequence[int], exclude: Collection[str]) -> Member | None:
        return self._fleet.lightest(exclude)
