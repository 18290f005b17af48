"""Folders that hold other data, and folders that other users have prepared."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dynemo.commands.engine import install
from dynemo.engines.compiled import keep_compiled_code
from dynemo.environments.installed import home_of
from dynemo.errors import ModelError, UsageError
from dynemo.folders import trusted
from dynemo.messages.ask import text_turn
from dynemo.models.hub.fetch import HubSource, fetch
from dynemo.planes.discovery.file import open_file
from dynemo.planes.discovery.marked import MARKER, NAME
from dynemo.terminal.chat.conversation import Conversation, save
from support.hub_server import Hub, Repo
from support.waiting import until

STRANGER = 65534
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")


def fill(folder: Path) -> dict[str, bytes]:
    """Puts folders there whose names look like leases, or like what a dead process has left."""
    names = [".oh-my-zsh", ".ssh-backup", ".new-project", ".dead-letters", "0123456789abcdef"]
    names += ["project-of-2025.", f".new-{'a' * 16}", f".dead-{'b' * 16}", "fedcba9876543210"]
    for name in names:
        (folder / name / "sub").mkdir(parents=True)
        (folder / name / "sub" / "data").write_text(name)
        (folder / name / ".alive").write_text("no lease")
        os.utime(folder / name, (1, 1))
    (folder / ("f" * 16)).symlink_to(folder / ".ssh-backup")
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and NAME not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


async def use(folder: Path) -> None:
    """Registers a key, and sweeps as often as several leases and a watch do."""
    async with open_file(folder, lease_ttl=2) as found, open_file(folder, lease_ttl=2) as other:
        await found.put("/dynemo/a", b"1")
        await other.claim("/dynemo/b", b"1")
        await other.put_blob(b"blob")
        assert await found.read("/dynemo/a") == {"/dynemo/a": b"1"}
        for _ in range(3):
            await asyncio.to_thread(found._store._folder.sweep)  # type: ignore[attr-defined]


def test_discovery_leaves_foreign_folders_alone(tmp_path: Path) -> None:
    before = fill(tmp_path)
    asyncio.run(use(tmp_path))
    assert contents(tmp_path) == before


def test_discovery_leaves_foreign_data_in_its_own_folder_alone(tmp_path: Path) -> None:
    asyncio.run(use(tmp_path))
    before = fill(tmp_path / NAME)
    asyncio.run(use(tmp_path))
    after = contents(tmp_path / NAME)
    assert sorted(after.values()) == sorted(before.values())  # it may have renamed a lease's folder
    assert {name for name in before if not name.startswith((".dead", "0", "f"))} <= set(after)


def test_a_folder_of_our_name_without_the_marker_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME / "photos").mkdir(mode=0o700, parents=True)
    (tmp_path / NAME).chmod(0o700)
    with pytest.raises(UsageError, match=r"dynemo-run has not made .*choose another"):
        asyncio.run(use(tmp_path))
    assert (tmp_path / NAME / "photos").is_dir()


def test_an_empty_folder_of_our_name_is_used(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir(mode=0o700)
    asyncio.run(use(tmp_path))
    assert (tmp_path / NAME / MARKER).is_file()


def test_our_folder_must_not_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / NAME).symlink_to("elsewhere")
    with pytest.raises(UsageError, match="is not a folder"):
        asyncio.run(use(tmp_path))
    assert os.listdir(tmp_path / "elsewhere") == []


def give_away(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def make_own_folder(tmp_path: Path) -> Path:
    """Another user has made `dir` in a folder like /tmp."""
    (tmp_path / "dir").mkdir()
    give_away(tmp_path / "dir")
    return tmp_path / "dir"


def make_marked_folder(tmp_path: Path) -> Path:
    """Another user has made our folder, and waits for what we write."""
    (tmp_path / NAME).mkdir(mode=0o700)
    give_away(tmp_path / NAME)
    return tmp_path


def make_link(tmp_path: Path) -> Path:
    """Another user has made a link to a folder of ours."""
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "dir").symlink_to("mine")
    give_away(tmp_path / "dir")
    return tmp_path / "dir"


def make_link_above(tmp_path: Path) -> Path:
    make_link(tmp_path)
    return tmp_path / "dir" / "a" / "b"


@needs_root
@pytest.mark.parametrize(
    "prepare", [make_own_folder, make_marked_folder, make_link, make_link_above]
)
def test_what_another_user_has_prepared_is_refused(
    tmp_path: Path, prepare: Callable[[Path], Path]
) -> None:
    tmp_path.chmod(0o1777)
    folder = prepare(tmp_path)
    with pytest.raises(UsageError, match=r"another user|belong to you alone"):
        asyncio.run(use(folder))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == []


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_a_path_that_other_users_can_change_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "open" / "dir").mkdir(parents=True)
    (tmp_path / "open").chmod(mode)
    with pytest.raises(UsageError, match=r'other users can write to ".*open"; run `chmod go-w`'):
        asyncio.run(use(tmp_path / "open" / "dir"))


def test_own_links_and_shared_temporary_folders_are_fine(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    (tmp_path / "link").symlink_to("tmp/../tmp")
    asyncio.run(use(tmp_path / "link" / "new"))
    assert trusted(tmp_path / "link" / "new") == tmp_path.resolve() / "tmp" / "new"
    assert (tmp_path / "tmp" / "new").stat().st_mode & 0o777 == 0o700


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UsageError, match=r"Cannot use .* for discovery: Too many levels"):
        asyncio.run(use(tmp_path / "a"))


def test_bad_files_in_our_folder_hide_nothing(tmp_path: Path) -> None:
    """A fifo, a device, a link out, a huge file and bytes that are not text: each is skipped."""

    async def body() -> None:
        async with open_file(tmp_path, lease_ttl=60) as found:
            await found.put("/dynemo/a", b"1")
            own = tmp_path / NAME
            [lease] = [path for path in own.iterdir() if len(path.name) == 16]
            os.mkfifo(lease / ("1" * 32))
            (lease / ("2" * 32)).symlink_to("/etc/hostname")
            (lease / ("3" * 32)).write_bytes(b"\xff\xfe\nvalue")
            (lease / ("4" * 32)).write_bytes(b"/dynemo/b")
            (lease / ("5" * 32)).mkdir()
            with (lease / ("6" * 32)).open("wb") as huge:
                huge.write(b"/dynemo/c\n")
                huge.truncate(1 << 40)
            for name, text in (("7" * 16, b""), ("8" * 16, b"x y"), ("9" * 16, b"\xff owned")):
                (own / name).mkdir()
                (own / name / ".alive").write_bytes(text)
            os.mkfifo(own / ("7" * 16) / "fifo")
            start = time.monotonic()
            assert await found.read("/dynemo/") == {"/dynemo/a": b"1"}
            assert await found.keys("/dynemo/") == ["/dynemo/a"]
            assert time.monotonic() - start < 5

    asyncio.run(body())


def test_a_lost_folder_is_made_again(tmp_path: Path) -> None:
    async def body() -> None:
        async with open_file(tmp_path, lease_ttl=2) as found:
            await found.put("/dynemo/a", b"1")
            await asyncio.to_thread(shutil.rmtree, tmp_path / NAME)
            await until(lambda: len(list((tmp_path / NAME).glob("[0-9a-f]*/[0-9a-f]*"))) == 1)
            assert await found.read("/dynemo/") == {"/dynemo/a": b"1"}

    asyncio.run(body())


def test_removing_an_environment_leaves_foreign_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of an engine may be a link to a large disk that holds other data."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    disk = tmp_path / "disk"
    (disk / "photos").mkdir(parents=True)
    (disk / "cpu-1f2e3d4c" / "bin").mkdir(parents=True)
    (disk / "cuda-00000000").symlink_to("photos")
    (disk / "environment.json").write_text("{}")
    home_of("vllm").parent.mkdir(parents=True)
    home_of("vllm").symlink_to(disk)
    assert install.remove("vllm") == 0
    assert os.listdir(disk) == ["photos"]


def test_saving_a_chat_follows_no_link(tmp_path: Path) -> None:
    """A link of the name that the second save would write to first."""
    conversation = Conversation()
    conversation.unanswered = (text_turn("user", "hello"),)
    (tmp_path / "precious").write_text("precious")
    path = save(conversation, str(tmp_path / "chat.json"))
    (tmp_path / f".chat.json.{os.getpid()}").symlink_to("precious")
    save(conversation, str(path))
    assert (tmp_path / "precious").read_text() == "precious"
    assert path.is_file()
    assert not path.is_symlink()


def test_compiled_code_is_not_kept_in_a_shared_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    keep_compiled_code(str(tmp_path / "work"))
    folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert folder == tmp_path / "cache" / "dynemo-run" / "torchinductor"
    assert folder.stat().st_mode & 0o777 == 0o700

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep_compiled_code(str(tmp_path / "work"))
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "work" / "torchinductor")


@pytest.mark.parametrize("tag", ["../../../precious", "/tmp/precious", "..", ".hidden", "a/b"])
def test_a_hub_cannot_choose_a_file_outside_of_its_cache(tmp_path: Path, tag: str) -> None:
    (tmp_path / "precious").write_text("precious")
    data = b"x" * (2 << 20)
    with Hub({"org/x": Repo({"x-Q8_0.gguf": data})}, tag=tag) as hub:
        cache = tmp_path / "cache"
        source = HubSource("org/x", hub.repos["org/x"].commit, hub.url, cache)
        with pytest.raises(ModelError, match=r"a tag that is not valid"):
            fetch(source, "x-Q8_0.gguf", len(data))
    assert (tmp_path / "precious").read_text() == "precious"
    assert not list(tmp_path.rglob("*.incomplete"))
