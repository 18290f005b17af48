"""The choice of the generation of a model that gets a new request. Pure.

A generation is all instances of a model that have one card. `--replace` lets a second one register
beside the first.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple


class GenerationState(NamedTuple):
    weight: float  #: its share of new requests, 0 to 1; the older ones get the rest
    is_able: bool  #: whether one of its instances takes requests
    is_free: bool  #: whether a request would start there at once


def choose_generation(newest_first: Sequence[GenerationState], draw: Callable[[], float]) -> int:
    """The index of the newest generation that has room, as far as the weights allow.

    `draw` returns uniform random numbers in [0, 1). If none has room, or none is able, that counts
    for nothing.
    """
    able = [index for index, each in enumerate(newest_first) if each.is_able]
    free = [index for index in able if newest_first[index].is_free]
    candidates = free or able or range(len(newest_first))
    for index in candidates[:-1]:
        if draw() < newest_first[index].weight:
            return index
    return candidates[-1]
