"""A short fuzz of every reader of foreign data, with fixed seeds, and its corpus.

`make fuzz` runs for longer, and adds the inputs that fail to the corpus.
"""

import random

import pytest

from fuzz.run import inputs, problem
from fuzz.targets import TARGETS, Target

_NUMBER = 200


@pytest.mark.timeout(120)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_bad_data_is_returned_or_refused(target: Target) -> None:
    for data in [*target.corpus(), *inputs(target, random.Random(1), _NUMBER)]:
        assert problem(target, data) == "", data[:2000]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_seeds_are_read(target: Target) -> None:
    """Otherwise the inputs would fail at their first byte."""
    for data in target.seeds():
        target.read(data)
