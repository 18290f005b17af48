"""Fixtures for tests of TLS."""

from pathlib import Path

import pytest

from support.authority import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Path:
    """Returns the folder of a certificate that the authority signed."""
    return authority.issue("ours")
