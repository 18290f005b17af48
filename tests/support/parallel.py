"""Distributes the tests over the processes of a parallel run (`pytest -n`).

A file's tests stay in one process, since they share its fixtures. Files that start vLLM or SGLang
come first and share two processes: an engine takes half a minute to load, and 2 GB of memory.
"""

import os
from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

#: Tests wait more than they compute. With more processes they would miss time limits.
_MORE_THAN_CORES, _MOST = 2, 8


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Returns 0 if the command line names files, because one process starts sooner."""
    if all(".py" in argument for argument in config.args):
        return 0
    return min((os.cpu_count() or 1) + _MORE_THAN_CORES, _MOST)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest tests first, so that all processes end at about the same time."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> tuple[bool, bool]:
    starts_processes = item.get_closest_marker("processes") is not None
    return not _starts_large_engines(item.path), not starts_processes


@cache
def _starts_large_engines(file: Path) -> bool:
    return "engine_python" in file.read_text(encoding="utf-8")


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling:
    return _Scheduling(config, log)


class _Scheduling(LoadFileScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        """Returns a key. Tests with the same key run in the same process."""
        file: str = super()._split_scope(nodeid)
        if _starts_large_engines(self.config.rootpath / file):
            return "vllm" if "vllm" in file else "sglang"
        return file
