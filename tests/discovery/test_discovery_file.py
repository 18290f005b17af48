import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from discovery_contract import TTL, DiscoveryContract, ProcessContract, Realm, member
from discovery_seen import in_loop, watching

from dynemo.errors import UsageError
from dynemo.runtime.discovery.discovery import Discovery
from dynemo.runtime.discovery.file import open_file


class FileRealm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, lease_ttl: float = TTL) -> AbstractAsyncContextManager[Discovery]:
        return open_file(self.path, lease_ttl=lease_ttl)

    def go_away(self) -> None:
        self.path.rename(self.path.with_name("gone"))
        self.path.write_text("in the way")

    async def come_back(self, *, with_data: bool = True) -> None:
        self.path.unlink()
        if with_data:
            self.path.with_name("gone").rename(self.path)
        else:
            self.path.mkdir(mode=0o700)


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
                assert await seen.until(lambda: not seen.state) < TTL / 2

    @in_loop
    async def test_only_the_owner_may_look(self, realm: Realm, tmp_path: Path) -> None:
        async with realm.open() as found:
            await found.put("/dynemo/a", b"1")
            for path in (tmp_path / "discovery").rglob("*"):
                if path.is_dir():
                    assert path.stat().st_mode & 0o077 == 0
        os.chmod(tmp_path / "discovery", 0o755)
        with pytest.raises(UsageError, match="0700"):
            async with realm.open():
                pass

    @in_loop
    async def test_what_the_dead_left_is_swept(self, realm: Realm, where: str) -> None:
        async with realm.open() as found:
            with member("file", where, "/dynemo/a"):
                pass
            await found.put("/dynemo/b", b"1")  # takes a lease, and sweeps
        assert [name for name in os.listdir(where) if len(name) == 16] == []

    @in_loop
    async def test_a_folder_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError, match="Cannot use"):
            async with open_file(tmp_path / "file" / "sub"):
                pass
