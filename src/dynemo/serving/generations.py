"""The generations of the models of an ingress: for each model, one pool for each card.

A request is prepared with the card of the generation that will serve it, and stays with it: another
card means other token ids.
"""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dynemo.errors import Unavailable
from dynemo.limits import MODELS
from dynemo.messages.records import InstanceRecord
from dynemo.router.generations import GenerationState, choose_generation
from dynemo.serving.pool import Pool
from dynemo.serving.served import ServedModel


@dataclass(eq=False)
class ServedGeneration:
    """All instances of one model with one card."""

    served: ServedModel
    pool: Pool
    identity: str
    place: tuple[str, str]  #: component and endpoint
    #: The latest start of an instance that replaces others; 0 if none does. The newest is highest.
    rank: float = 0.0
    #: The time since which it has no instance, on the clock of `time.monotonic`; else None.
    idle_since: float | None = field(default_factory=time.monotonic)

    @property
    def weight(self) -> float:
        """The share of new requests that its latest instance asks for."""
        records = (remote.record for remote in self.pool.remotes)
        latest = max(records, key=lambda record: record.started, default=None)
        return 1.0 if latest is None else latest.weight

    @property
    def state(self) -> GenerationState:
        return GenerationState(self.weight, not self.pool.trouble, self.served.room.is_free)


class ServedGenerations:
    """By model, the newest first. `models` has the newest one of each."""

    def __init__(self) -> None:
        self.models: dict[str, ServedModel] = {}
        self._all: dict[str, list[ServedGeneration]] = {}

    def __iter__(self) -> Iterator[ServedGeneration]:
        return (each for generations in self._all.values() for each in generations)

    def find(self, record: InstanceRecord) -> ServedGeneration | None:
        """The generation of an instance, if it is there. Raises Unavailable if the instance must
        not be served beside the other generations."""
        others = [each for each in self._all.get(record.model, []) if len(each.pool)]
        own = [each for each in self._all.get(record.model, []) if _is_of(each, record)]
        if len(others) == 0 or all(each in own for each in others):
            return own[0] if own else None
        place = (record.component, record.endpoint)
        is_replaced = record.replaces or any(each.rank for each in others)
        if own and len(own[0].pool):
            return own[0]
        if not is_replaced or any(each.place != place for each in others):
            raise Unavailable(
                "Other instances of its model have another card. Start its worker with --replace "
                "if it shall take over, or stop the others."
            )
        return own[0] if own else None

    def open(self, record: InstanceRecord, served: ServedModel, pool: Pool) -> ServedGeneration:
        place = (record.component, record.endpoint)
        made = ServedGeneration(served, pool, record.identity, place)
        self._all.setdefault(record.model, []).insert(0, made)
        return made

    def check_count(self) -> None:
        """Raises Unavailable if no further generation can be opened."""
        if sum(map(len, self._all.values())) >= MODELS:
            raise Unavailable(f"More than {MODELS} models are registered.")

    def joined(self, generation: ServedGeneration, record: InstanceRecord) -> None:
        """An instance has joined its pool."""
        generation.idle_since = None
        if record.replaces:
            generation.rank = max(generation.rank, record.started)
        self._sort(record.model)

    def _sort(self, model: str) -> None:
        found = self._all[model]
        # A generation without instances is the newest only if none has instances.
        found.sort(key=lambda each: (each.idle_since is None, each.rank), reverse=True)
        self.models[model] = found[0].served

    def left(self, generation: ServedGeneration) -> None:
        """An instance has left its pool."""
        if not len(generation.pool):
            generation.idle_since = time.monotonic()
            self._sort(generation.served.name)

    def of(self, model: str) -> Sequence[ServedModel]:
        return [each.served for each in self._all.get(model, [])]

    def choose(self, model: ServedModel) -> ServedModel:
        """The generation that gets a new request for a model."""
        found = self._all.get(model.name, [])
        if len(found) < 2:
            return model
        return found[choose_generation([each.state for each in found], random.random)].served

    def drop_idle(self, before: float) -> list[ServedModel]:
        """Drops generations without instances since `before`, but not the last model: a 503 that
        there is no instance is truer than a 404."""
        dropped = []
        for each in list(self):
            model = each.served.name
            is_last = len(self._all) == 1 and len(self._all[model]) == 1
            if each.idle_since is None or each.idle_since >= before or is_last:
                continue
            dropped.append(each.served)
            self._all[model].remove(each)
            if self._all[model]:
                self._sort(model)
            else:
                del self._all[model], self.models[model]
        return dropped


def _is_of(generation: ServedGeneration, record: InstanceRecord) -> bool:
    return generation.identity == record.identity
