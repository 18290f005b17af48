import os
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path

import pytest

from dynemo.errors import UsageError
from dynemo.planes.discovery.discovery import Discovery
from dynemo.planes.discovery.file import open_file
from dynemo.planes.discovery.marked import NAME
from support.discovery_contract import TTL, DiscoveryContract, ProcessContract, Realm, member
from support.discovery_seen import in_loop, watching


class FileRealm:
    """A symbolic link to the folder. A test can point it elsewhere in one step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turns = count()
        self._turn(self._new_folder())

    def open(self, lease_ttl: float = TTL) -> AbstractAsyncContextManager[Discovery]:
        return open_file(self.path, lease_ttl=lease_ttl)

    def go_away(self) -> None:
        self._folder = self.path.resolve()
        self._turn(self.path.with_name("nowhere") / "at" / "all")

    async def come_back(self, *, with_data: bool = True) -> None:
        self._turn(self._folder if with_data else self._new_folder())

    def _new_folder(self) -> Path:
        folder = self.path.with_name(f"folder-{next(self._turns)}")
        folder.mkdir(mode=0o700)
        return folder

    def _turn(self, target: Path) -> None:
        link = self.path.with_name("link")
        link.symlink_to(target)
        link.replace(self.path)


class TestFile(DiscoveryContract, ProcessContract):
    kind = "file"

    @pytest.fixture
    def realm(self, tmp_path: Path) -> Realm:
        return FileRealm(tmp_path / "discovery")

    @pytest.fixture
    def where(self, tmp_path: Path) -> str:
        return str(tmp_path / "discovery")

    @in_loop
    async def test_a_death_is_seen_at_once(self, realm: Realm, where: str, prefix: str) -> None:
        async with realm.open() as found, watching(found, prefix) as seen:
            with member("file", where, f"{prefix}a") as process:
                await seen.until(lambda: seen.state)
                process.kill()
                assert await seen.until(lambda: not seen.state) < TTL

    @in_loop
    async def test_only_the_owner_may_look(self, tmp_path: Path) -> None:
        os.chmod(tmp_path, 0o755)
        async with open_file(tmp_path) as found:
            await found.put("/dynemo/a", b"1")
            modes = {os.stat(folder).st_mode & 0o777 for folder, _, _ in os.walk(tmp_path / NAME)}
            assert modes == {0o700}
        os.chmod(tmp_path / NAME, 0o755)
        with pytest.raises(UsageError, match="0700"):
            async with open_file(tmp_path):
                pass

    @in_loop
    async def test_keys_of_dead_processes_are_deleted(self, realm: Realm, where: str) -> None:
        async with realm.open() as found:
            with member("file", where, "/dynemo/a"):
                pass
            await found.put("/dynemo/b", b"1")  # it takes a lease, and sweeps the folder
            assert len(os.listdir(Path(where) / NAME)) == 3  # the marker, the lock, one lease

    @in_loop
    async def test_a_folder_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError, match="Cannot use"):
            async with open_file(tmp_path / "file" / "sub"):
                pass
