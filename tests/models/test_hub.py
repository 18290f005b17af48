"""Downloads from a small local server that speaks the Hub's protocol."""

import contextlib
import errno
import json
import os
import pty
import random
import re
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import dynemo
from dynemo.errors import ModelError
from dynemo.models.hub.download import Downloaded, HubName, download, parse_hub_name
from dynemo.models.hub.errors import translated
from support.hub_server import Hub, Repo

BIG = random.Random(1).randbytes(3 << 20)
OTHER = random.Random(2).randbytes(2 << 20)
#: Long enough to be interrupted in the middle: the library writes 10 MiB at a time.
LONG = random.Random(3).randbytes(16 << 20)
CHUNK = 10 << 20
GGUF = b"GGUF" + bytes(5000)

CHECKOUT = {
    "README.md": b"# a model",
    "config.json": b"{}",
    "generation_config.json": b"{ }",
    "tokenizer.json": b"{  }",
    "tokenizer_config.json": b"{   }",
    "chat_template.jinja": b"{{ messages }}",
    "additional_chat_templates/tool.jinja": b"{{ tools }}",
    "model.safetensors.index.json": json.dumps(
        {
            "weight_map": {
                "a": "model-00001-of-00002.safetensors",
                "b": "model-00002-of-00002.safetensors",
            }
        }
    ).encode(),
    "model-00001-of-00002.safetensors": BIG,
    "model-00002-of-00002.safetensors": OTHER,
    "consolidated.safetensors": b"1" * 5000,
    "pytorch_model.bin": b"2" * 5000,
    "onnx/model.onnx": b"3" * 5000,
    "original/params.json": b"{    }",
    "modeling_custom.py": b"raise SystemExit",
}
NEEDED = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "additional_chat_templates/tool.jinja",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
}
QUANTS = {
    "README.md": b"# quants",
    "config.json": b"{}",
    "tiny-Q4_K_M.gguf": GGUF + b"4",
    "tiny-Q8_0.gguf": GGUF + b"8",
    "mmproj-tiny-F16.gguf": GGUF + b"m",
    "BF16/tiny-BF16-00001-of-00002.gguf": GGUF + b"b1",
    "BF16/tiny-BF16-00002-of-00002.gguf": GGUF + b"b2",
}
TWINS = {"a-Q8_0.gguf": b"", "b-Q8_0.gguf": b""}
UNUSUAL = {"a-Q8_0.gguf": b"", "a-F16.gguf": b""}
PICKLES = {"config.json": b"", "pytorch_model.bin": b""}
ADAPTER = {"adapter_config.json": b"", "adapter_model.safetensors": b""}


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    from huggingface_hub import close_session, constants

    # The library read this path on import. It must not find the token of the developer.
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    yield
    close_session()


def get(hub: Hub, name: str, cache: Path, **options: object) -> Downloaded:
    parsed = parse_hub_name(name)
    assert parsed is not None
    options.setdefault("notify", _silent)
    return download(parsed, endpoint=hub.url, cache=cache, **options)  # type: ignore[arg-type]


def _silent(line: str) -> None:
    raise AssertionError(f"an unexpected line: {line}")


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("org/repo", HubName("org/repo")),
        ("org/repo@v1", HubName("org/repo", "v1")),
        ("org/repo@refs/pr/1:Q8_0", HubName("org/repo", "refs/pr/1", "Q8_0")),
        ("org/repo:a/b-Q8_0.gguf", HubName("org/repo", None, "a/b-Q8_0.gguf")),
        ("repo", None),
        ("a/b/c", None),
        ("org/repo:", None),
        ("https://host/org/repo", None),
    ],
)
def test_a_hub_name_is_parsed(argument: str, name: HubName | None) -> None:
    assert parse_hub_name(argument) == name
    if name is not None:
        assert str(name) == argument


def test_a_checkout_gets_only_the_files_that_an_engine_needs(tmp_path: Path) -> None:
    with Hub({"org/tiny": Repo(CHECKOUT)}) as hub:
        got = get(hub, "org/tiny", tmp_path)
        assert got.format == "checkout"
        assert files_below(got.path) == NEEDED
        assert (got.path / "model-00001-of-00002.safetensors").read_bytes() == BIG
        assert sorted(hub.fetched()) == sorted(NEEDED)
        hub.seen.clear()
        assert get(hub, "org/tiny", tmp_path) == got
        assert hub.fetched() == []


def test_a_revision_is_followed(tmp_path: Path) -> None:
    with Hub({"org/tiny": Repo(CHECKOUT, revisions=("main", "v1"))}) as hub:
        assert get(hub, "org/tiny@v1", tmp_path).format == "checkout"
        with pytest.raises(ModelError, match=r'"org/tiny" has no such revision\. Check'):
            get(hub, "org/tiny@v2", tmp_path)


@pytest.mark.parametrize(
    ("pick", "main"),
    [
        (":Q8_0", "tiny-Q8_0.gguf"),
        (":q8_0", "tiny-Q8_0.gguf"),
        (":tiny-Q8_0.gguf", "tiny-Q8_0.gguf"),
        (":mmproj-tiny-F16.gguf", "mmproj-tiny-F16.gguf"),
        (":bf16", "BF16/tiny-BF16-00001-of-00002.gguf"),
        (":tiny-BF16-00002-of-00002.gguf", "BF16/tiny-BF16-00001-of-00002.gguf"),
    ],
)
def test_a_gguf_is_picked_by_file_or_label(tmp_path: Path, pick: str, main: str) -> None:
    with Hub({"org/tiny-GGUF": Repo(QUANTS)}) as hub:
        got = get(hub, f"org/tiny-GGUF{pick}", tmp_path)
        assert got.format == "gguf"
        assert got.path.as_posix().endswith(
            f"/snapshots/{hub.repos['org/tiny-GGUF'].commit}/{main}"
        )
        parts = 2 if "BF16" in main else 1
        assert len(hub.fetched()) == parts
        assert len(list(got.path.parent.glob("*.gguf"))) == parts


def test_without_a_pick_the_usual_quantization_is_taken_and_named(tmp_path: Path) -> None:
    notes: list[str] = []
    with Hub({"org/tiny-GGUF": Repo(QUANTS)}) as hub:
        got = get(hub, "org/tiny-GGUF", tmp_path, notify=notes.append)
        assert got.path.name == "tiny-Q4_K_M.gguf"
        assert notes == ["Using tiny-Q4_K_M.gguf of org/tiny-GGUF."]
        assert hub.fetched() == ["tiny-Q4_K_M.gguf"]


def test_the_engine_decides_where_a_repository_has_both(tmp_path: Path) -> None:
    both = {**CHECKOUT, "tiny-Q8_0.gguf": GGUF}
    with Hub({"org/both": Repo(both)}) as hub:
        assert get(hub, "org/both", tmp_path, needs="gguf").format == "gguf"
        assert hub.fetched() == ["tiny-Q8_0.gguf"]
        assert get(hub, "org/both", tmp_path).format == "checkout"


@pytest.mark.parametrize(
    ("files", "name", "needs", "sentence"),
    [
        (QUANTS, "org/x:Q5_0", None, '"org/x" has no "Q5_0". Choose one of BF16, Q4_K_M, Q8_0.'),
        (CHECKOUT, "org/x:Q5_0", None, '"org/x" has no GGUF file. Remove ":Q5_0".'),
        (QUANTS, "org/x", "checkout", "holds only GGUF files, but the engine needs a checkout"),
        (CHECKOUT, "org/x", "gguf", '"org/x" is a checkout, but the engine needs a GGUF file'),
        (TWINS, "org/x:Q8_0", None, 'for "Q8_0". Choose one of a-Q8_0.gguf, b-Q8_0.gguf'),
        (UNUSUAL, "org/x", None, "Choose one, for example org/x:F16. It has F16, Q8_0."),
        ({"a-00001-of-00002.gguf": b""}, "org/x", None, '"org/x" lacks a-00002-of-00002.gguf'),
        (PICKLES, "org/x", None, '"org/x" has its weights only as PyTorch pickles'),
        (ADAPTER, "org/x", None, '"org/x" is an adapter, not a whole model'),
        ({"README.md": b""}, "org/x", None, "neither safetensors nor GGUF"),
    ],
)
def test_an_impossible_choice_is_refused_before_any_download(
    tmp_path: Path, files: dict[str, bytes], name: str, needs: str | None, sentence: str
) -> None:
    with Hub({"org/x": Repo(files)}) as hub:
        with pytest.raises(ModelError) as caught:
            get(hub, name, tmp_path, needs=needs)
        assert sentence in str(caught.value)
        assert hub.fetched() == []


def test_a_token_reaches_the_hub_and_not_its_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "good")
    repo = Repo({"big-Q8_0.gguf": BIG}, tokens=("good",))
    with Hub({"org/private": repo}) as hub:
        assert get(hub, "org/private", tmp_path).path.read_bytes() == BIG
        assert {s.token for s in hub.seen if s.path.startswith("/cdn/")} == {None}
        assert {s.token for s in hub.seen if not s.path.startswith("/cdn/")} == {"good"}


@pytest.mark.parametrize(
    ("token", "name", "sentence"),
    [
        (None, "org/none", "on the Hub. Check the name, or, if it is private, set HF_TOKEN"),
        ("other", "org/none", "on the Hub. Check the name, or ask for access"),
        (None, "org/gated", "gated. Accept its terms at URL/org/gated, then set HF_TOKEN"),
        (
            "other",
            "org/gated",
            "gated, and this token may not read it. Ask for access at URL",
        ),
        ("bad", "org/open", 'The Hub refused the token for "org/open" (401). Check HF_TOKEN'),
        (None, "org/a--b", '"org/a--b" is not a Hub name. A Hub name looks like org/repo'),
    ],
)
def test_a_repository_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, name: str, sentence: str
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    gated = Repo({"big-Q8_0.gguf": BIG}, gated=True, tokens=("good",))
    with Hub({"org/gated": gated, "org/open": Repo(QUANTS)}) as hub:
        with pytest.raises(ModelError) as caught:
            get(hub, name, tmp_path)
        assert sentence.replace("URL", hub.url) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (429, "too many requests from here (429). Wait a little, or set HF_TOKEN"),
        (500, 'The Hub failed on "org/x" (500). Try again later'),
        (503, 'The Hub failed on "org/x" (503). Try again later'),
        (418, 'The Hub answered 418 for "org/x"'),
        (200, 'The Hub sent an invalid answer about "org/x"'),
    ],
)
def test_a_hub_that_answers_badly(tmp_path: Path, status: int, sentence: str) -> None:
    with Hub({}, status=status) as hub, pytest.raises(ModelError) as caught:
        get(hub, "org/x", tmp_path)
    assert sentence in str(caught.value)


def test_no_network_says_so_or_uses_the_cache(tmp_path: Path) -> None:
    with Hub({"org/tiny": Repo(CHECKOUT)}) as hub:
        got = get(hub, "org/tiny", tmp_path / "full")
    with pytest.raises(
        ModelError, match=r'^No connection to the Hub for "org/tiny" \(.*\)\. Check the'
    ):
        get(hub, "org/tiny", tmp_path / "empty")
    notes: list[str] = []
    assert get(hub, "org/tiny", tmp_path / "full", notify=notes.append) == got
    assert re.fullmatch(r"No connection .*\. Using the copy in the cache\.", notes[0])
    # A copy that lacks a file is not used.
    (got.path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="No connection to the Hub"):
        get(hub, "org/tiny", tmp_path / "full")


def test_a_full_disk_is_refused_before_any_download(tmp_path: Path) -> None:
    with Hub({"org/tiny": Repo(CHECKOUT)}) as hub:
        with pytest.raises(ModelError) as caught:
            get(hub, "org/tiny", tmp_path, free=lambda _: 1_000_000)
        assert str(caught.value) == (
            f'"org/tiny" needs 5.2 MB more, but "{tmp_path}" has only 1.0 MB free. '
            "Free some space, or set HF_HOME to another disk."
        )
        assert hub.fetched() == []
        get(hub, "org/tiny", tmp_path)
        # Complete files need no more space.
        get(hub, "org/tiny", tmp_path, free=lambda _: 0)


def test_a_disk_that_fills_up_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught, translated("org/x", str(tmp_path)):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(caught.value).startswith(
        f'No space is left in "{tmp_path}" for "org/x". Free some space, or set'
    )


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "models--org--big").write_text("in the way")
    with Hub({"org/big": Repo({"big-Q8_0.gguf": BIG})}) as hub, pytest.raises(ModelError) as caught:
        get(hub, "org/big", tmp_path)
    assert str(caught.value).startswith('"org/big" cannot be stored in the Hub cache')


def test_a_resumed_file_that_comes_out_wrong_is_not_kept(tmp_path: Path) -> None:
    with Hub({"org/big": Repo({"big-Q8_0.gguf": BIG})}) as hub:
        blobs = tmp_path / "models--org--big" / "blobs"
        blobs.mkdir(parents=True)
        from hashlib import sha256

        partial = blobs / f"{sha256(BIG).hexdigest()}.incomplete"
        partial.write_bytes(bytes(1000))
        with pytest.raises(
            ModelError,
            match=r'download of "big-Q8_0.gguf" is corrupt\. Run the command again',
        ):
            get(hub, "org/big", tmp_path)
        assert not partial.exists()
        assert get(hub, "org/big", tmp_path).path.read_bytes() == BIG


SOURCE = str(Path(dynemo.__file__).parents[1])
SCRIPT = """
import sys
from dynemo.errors import ModelError
from dynemo.models.hub.download import download, parse_hub_name
try:
    print(download(parse_hub_name(sys.argv[1])).path)
except ModelError as error:
    sys.exit(str(error))
except KeyboardInterrupt:
    sys.exit(130)
"""


def command(
    name: str, home: Path, settings: dict[str, str], stderr: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    keep = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, name],
        env={**keep, "PYTHONPATH": SOURCE, "HF_HOME": str(home), **settings},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def test_a_cut_connection_is_resumed_without_a_word(tmp_path: Path) -> None:
    with Hub({"org/big": Repo({"big-Q8_0.gguf": LONG})}, cut_after=12 << 20, cuts=1) as hub:
        with command("org/big", tmp_path, {"HF_ENDPOINT": hub.url}) as process:
            out, err = process.communicate(timeout=15)
        assert err == ""
        assert Path(out.strip()).read_bytes() == LONG
        ranges = [s.range for s in hub.seen if s.path.startswith("/cdn/")]
        assert ranges == [None, f"bytes={CHUNK}-"]


def test_ctrl_c_stops_at_once_and_the_next_run_continues(tmp_path: Path) -> None:
    with Hub({"org/big": Repo({"big-Q8_0.gguf": LONG})}, slow_after=CHUNK + (1 << 17)) as hub:
        blobs = tmp_path / "hub" / "models--org--big" / "blobs"
        with command("org/big", tmp_path, {"HF_ENDPOINT": hub.url}) as first:
            deadline = time.monotonic() + 10
            while not any(p.stat().st_size >= CHUNK for p in blobs.glob("*.incomplete")):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            first.send_signal(signal.SIGINT)
            started = time.monotonic()
            out, err = first.communicate(timeout=10)
            assert time.monotonic() - started < 8
        assert (first.returncode, out) == (130, "")
        assert err == "Stopped. To resume the download of org/big, run the command again.\n"
        hub.slow_after = None
        hub.seen.clear()
        with command("org/big", tmp_path, {"HF_ENDPOINT": hub.url}) as second:
            out, err = second.communicate(timeout=15)
        assert (second.returncode, err) == (0, "")
        assert Path(out.strip()).read_bytes() == LONG
        assert [s.range for s in hub.seen if s.path.startswith("/cdn/")] == [f"bytes={CHUNK}-"]
        assert not list(blobs.glob("*.incomplete"))


def test_a_terminal_shows_a_bar_for_each_large_file(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with Hub({"org/tiny": Repo(CHECKOUT)}) as hub:
        settings = {"HF_ENDPOINT": hub.url}
        with command("org/tiny", tmp_path, settings, stderr=theirs) as process:
            os.close(theirs)
            shown = b""
            # On Linux, reading a terminal fails if its other end is closed.
            with contextlib.suppress(OSError):
                while data := os.read(ours, 4096):
                    shown += data
            os.close(ours)
    assert process.returncode == 0
    assert re.search(rb"model-00001-of-00002.safetensors: 100%.*3.15M/3.15M", shown)
    assert b"config.json" not in shown


def test_offline_uses_the_cache_or_says_so(tmp_path: Path) -> None:
    with Hub({"org/tiny": Repo(CHECKOUT)}) as hub:
        got = get(hub, "org/tiny", tmp_path / "hub")
        hub.seen.clear()
        settings = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "1"}
        with (
            command("org/tiny", tmp_path, settings) as there,
            command("org/other", tmp_path, settings) as missing,
        ):
            assert there.communicate(timeout=15) == (f"{got.path}\n", "")
            _, err = missing.communicate(timeout=15)
        assert missing.returncode == 1
        assert err == (
            f'"org/other" is not in the Hub cache "{tmp_path / "hub"}", and HF_HUB_OFFLINE is set. '
            "Unset it to download the model.\n"
        )
        assert hub.seen == []


def test_a_closed_port_is_no_network(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        with pytest.raises(ModelError, match='No connection to the Hub for "org/x"'):
            download(HubName("org/x"), endpoint=f"http://127.0.0.1:{port}", cache=tmp_path)
