"""The choice of the generation that gets a new request."""

import random
from collections import Counter

import pytest

from dynemo.router.generations import GenerationState, choose_generation


def shares(*states: tuple[float, bool, bool]) -> list[float]:
    """The share of each generation, the newest first, in 10,000 choices."""
    generator = random.Random(1)
    generations = [GenerationState(*state) for state in states]
    chosen = Counter(choose_generation(generations, generator.random) for _ in range(10_000))
    return [round(chosen[index] / 10_000, 1) for index in range(len(states))]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([(1.0, True, True), (1.0, True, True)], [1, 0]),
        ([(0.1, True, True), (1.0, True, True)], [0.1, 0.9]),
        ([(0.5, True, True), (0.5, True, True), (1.0, True, True)], [0.5, 0.2, 0.2]),
        ([(0.0, True, True), (1.0, True, True)], [0, 1]),
        # The newest is full, has no healthy instance, or is alone.
        ([(1.0, True, False), (1.0, True, True)], [0, 1]),
        ([(1.0, False, False), (1.0, True, True)], [0, 1]),
        ([(0.1, True, True), (1.0, False, True)], [1, 0]),
        ([(0.0, True, False), (1.0, False, False)], [1, 0]),
        # All are full: requests wait at the newest.
        ([(1.0, True, False), (1.0, True, False)], [1, 0]),
        ([(1.0, False, False), (1.0, False, False)], [1, 0]),
    ],
)
def test_shares(states: list[tuple[float, bool, bool]], expected: list[float]) -> None:
    assert shares(*states) == pytest.approx(expected, abs=0.11)
