"""Fixtures that many tests share: the demo model in its forms, made once a run."""

from pathlib import Path

import pytest

from dynemo.models.find import demo_checkout, demo_gguf

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def demo() -> Path:
    """The demo model's GGUF, as it ships (Q8_0)."""
    return demo_gguf()


@pytest.fixture(scope="session")
def demo_folder() -> Path:
    """The demo model's checkout."""
    return demo_checkout()
