"""Marks the tests that start processes. `make quick` leaves them out: `-m "not processes"`.

A test gets the mark if its code, its fixtures or one of their helpers names something that starts
processes. llama.cpp's server in this process counts as well. If only `dynemo` starts a process, the
test's file has to set the mark. An unmarked test fails when it starts one.
"""

import inspect
import sys
from collections.abc import Generator
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

import pytest

_STARTERS = {"subprocess", "create_subprocess_exec", "spawn", "Server"}
_EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
_TESTS = str(Path(__file__).parent.parent)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and _reaches_a_starter(item):
            item.add_marker(pytest.mark.processes)


def _reaches_a_starter(test: pytest.Function) -> bool:
    fixtures = test._fixtureinfo.name2fixturedefs.values()
    left: list[object] = [test.function, *(versions[-1].func for versions in fixtures)]
    seen: set[int] = set()
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, type):
            left += _parts(one)
        elif code := _code(one):
            names = _names(code.__code__)
            if names & _STARTERS:
                return True
            left += [code.__globals__[name] for name in names & code.__globals__.keys()]
    return False


def _parts(one: type) -> list[object]:
    """Returns the bases and methods of a class, if the tests define it."""
    file = getattr(sys.modules[one.__module__], "__file__", None) or ""
    return [*one.__bases__, *vars(one).values()] if file.startswith(_TESTS) else []


def _code(one: Any) -> FunctionType | None:
    """Returns the function in `one`, if the tests define it."""
    if isinstance(one, property):
        one = one.fget
    elif isinstance(one, classmethod | staticmethod | MethodType):
        one = one.__func__
    one = inspect.unwrap(one)
    is_ours = isinstance(one, FunctionType) and one.__code__.co_filename.startswith(_TESTS)
    return one if is_ours else None


def _names(code: CodeType) -> set[str]:
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return set(code.co_names).union(*map(_names, inner))


_unmarked: list[pytest.Item] = []  #: the running test, if it must not start a process


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if item.get_closest_marker("processes") is None:
        _unmarked.append(item)
    try:
        return (yield)
    finally:
        _unmarked.clear()


def _refuse(event: str, args: tuple[object, ...]) -> None:
    if _unmarked and event in _EVENTS and args[:1] != ("uname",):  # as `platform.uname()` does
        pytest.fail(f"{_unmarked[0].nodeid} starts a process: give it @pytest.mark.processes.")


sys.addaudithook(_refuse)
