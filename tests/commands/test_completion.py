"""Completion of commands in real shells."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.shells import START, Shell, shell

CASES = {
    "services u\t": "services up",
    "services d\t": "services down",
    "services st\t": "services status",
    "services up --na\t4333": "services up --nats-port 4333",
    "services up mod\t": "services up mod",  # this command takes no word
    "ps --wat\t --j\t": "ps --watch --json",
    "ps --w\t": "ps --wa",  # both --wait and --watch fit
    "engine ins\tvl\t--dev\tcu\t": "engine install vllm --device cuda",
    "comple\tfi\t": "completion fish",
    "render mod\t--mess\tcha\t": "render model.gguf --messages chat.json",
    "in=ht\tout=ec\tmod\t": "in=http out=echo model.gguf",
    "in=dyn\tpool": "in=dyn://pool",
    "in=batch:cha\t": "in=batch:chat.json",
    "mod\tserv\t": "model.gguf serv",  # only the first word is a command
    "--router-mode le\t": "--router-mode least-loaded",
    "--router-mode=le\t": "--router-mode=least-loaded",
    "--conf\tcha\t": "--config chat.json",
}


@pytest.fixture(scope="module", params=sorted(START))
def shell_with_files(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shell]:
    if shutil.which(request.param) is None:
        pytest.skip(f"there is no {request.param}")
    folder: Path = tmp_path_factory.mktemp(request.param)
    for name in ("model.gguf", "chat.json"):
        (folder / name).touch()
    with shell(request.param, folder) as started:
        yield started


@pytest.mark.parametrize("keys", CASES)
def test_tab_completes_the_word(shell_with_files: Shell, keys: str) -> None:
    assert shell_with_files.type(keys) == CASES[keys].strip()
