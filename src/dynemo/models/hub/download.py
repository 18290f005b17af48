"""Downloads a model from the Hub: `org/repo` or `org/repo@revision`, with an optional `:GGUF`.

It uses huggingface_hub with its cache, progress bars and settings (`HF_TOKEN`, `HF_HOME`,
`HF_ENDPOINT`, `HF_HUB_OFFLINE`, ...). One request lists the repository. Then only the files that an
engine needs are downloaded, one after the other, on the calling thread. The library's own snapshot
download waits for its threads, so Ctrl-C would have to wait for complete files. If the Hub does not
answer, a complete model in the cache is used.
"""

import logging
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from dynemo.errors import ModelError
from dynemo.foreign import decode_json
from dynemo.models.choose import ModelChoice, ModelFormat, choose
from dynemo.models.hub.errors import HubUnreachable, translated
from dynemo.models.hub.fetch import HubSource, fetch
from dynemo.spelling import visible

_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^:\s]+))?(?::(?P<pick>[^:]+))?")
#: Timeout for listing a repository, in seconds.
LIST_TIMEOUT = 20.0


class HubName(Struct, frozen=True):
    """A model on the Hub. `pick` is a GGUF file or the label of a quantization."""

    repo: str
    revision: str | None = None
    pick: str | None = None

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{at}:{self.pick}" if self.pick else f"{self.repo}{at}"


class Downloaded(Struct, frozen=True):
    """A model in the Hub's cache. `path` is the (first) GGUF file, or the checkout's folder."""

    format: ModelFormat
    path: Path


class _Listing(Struct, frozen=True):
    commit: str
    #: File -> (size, name of its blob). Either may be None if unknown.
    files: dict[str, tuple[int | None, str | None]]


def parse_hub_name(argument: str) -> HubName | None:
    """Parses `argument` as a Hub name. Returns None if it does not look like one."""
    match = _NAME.fullmatch(argument)
    return HubName(match["repo"], match["revision"], match["pick"]) if match else None


def print_line(line: str) -> None:
    """Prints a line to stderr."""
    print(visible(line), file=sys.stderr, flush=True)


def free_space(folder: Path) -> int:
    """Returns the free bytes on the disk of `folder`, which need not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def download(
    name: HubName,
    *,
    needs: ModelFormat | None = None,
    endpoint: str | None = None,
    cache: Path | None = None,
    free: Callable[[Path], int] = free_space,
    notify: Callable[[str], None] = print_line,
) -> Downloaded:
    """Downloads the model into the Hub's cache and returns its path there.

    It blocks; call it on the main thread. `needs` is the format that the engine requires; without
    it, a checkout takes precedence over a GGUF. `endpoint` and `cache` default to huggingface_hub's
    settings. Raises ModelError for every failure. The next call resumes an interrupted download.
    """
    from huggingface_hub import constants

    cache = (cache or Path(constants.HF_HUB_CACHE)).expanduser()
    with translated(name.repo, str(cache)), _quiet():
        try:
            listing = _list_remote(name, endpoint, cache)
        except HubUnreachable as error:
            return _from_cache(name, needs, cache, error, notify)
        choice = choose(tuple(listing.files), place=_place(name), pick=name.pick, needs=needs)
        if choice.note:
            notify(choice.note)
        source = HubSource(name.repo, listing.commit, endpoint, cache)
        _check_space(source, listing, choice, free)
        return _fetch_all(name, source, listing, choice, notify)


def _list_remote(name: HubName, endpoint: str | None, cache: Path) -> _Listing:
    from huggingface_hub import HfApi

    with translated(name.repo, str(cache)):
        info = HfApi(endpoint=endpoint, library_name="dynemo-run").model_info(
            name.repo, revision=name.revision, files_metadata=True, timeout=LIST_TIMEOUT
        )
        files = {
            file.rfilename: (file.size, file.lfs.sha256 if file.lfs else file.blob_id)
            for file in info.siblings or ()
        }
        if not info.sha:
            raise ValueError("no commit")
        return _Listing(info.sha, files)


def _check_space(
    source: HubSource, listing: _Listing, choice: ModelChoice, free: Callable[[Path], int]
) -> None:
    needed = 0
    for file in choice.files:
        size, blob = listing.files[file]
        path = source.blobs / (blob or "-")
        partial = path.with_name(f"{path.name}.incomplete")
        if size and not path.exists():
            needed += max(0, size - (partial.stat().st_size if partial.exists() else 0))
    available = free(source.cache)
    if needed > available:
        raise ModelError(
            f'"{source.repo}" needs {_size(needed)} more, but "{source.cache}" has only '
            f"{_size(available)} free. Free some space, or set HF_HOME to another disk."
        )


def _fetch_all(
    name: HubName,
    source: HubSource,
    listing: _Listing,
    choice: ModelChoice,
    notify: Callable[[str], None],
) -> Downloaded:
    # The first file is requested by the revision's name, so the cache records the name for offline
    # use.
    revision: str | None = name.revision or "main"
    snapshot: Path | None = None
    try:
        for file in choice.files:
            path = fetch(source, file, listing.files[file][0], revision)
            here = path.parents[file.count("/")]
            if snapshot not in (None, here):
                raise ModelError(
                    f'"{name.repo}" has just changed on the Hub. Run the command again.'
                )
            snapshot, revision = here, None
    except KeyboardInterrupt:
        notify(f"Stopped. To resume the download of {name}, run the command again.")
        raise
    assert snapshot is not None
    return _downloaded(snapshot, choice)


def _downloaded(snapshot: Path, choice: ModelChoice) -> Downloaded:
    main = snapshot / choice.main
    return Downloaded(choice.format, main if choice.format == "gguf" else snapshot)


def _from_cache(
    name: HubName,
    needs: ModelFormat | None,
    cache: Path,
    error: HubUnreachable,
    notify: Callable[[str], None],
) -> Downloaded:
    """Returns the model in the cache if it is complete. Otherwise raises `error`."""
    from huggingface_hub import is_offline_mode

    repository = cache / f"models--{name.repo.replace('/', '--')}"
    revision = name.revision or "main"
    ref = repository / "refs" / revision
    commit = ref.read_text().strip() if ref.is_file() else revision
    snapshot = repository / "snapshots" / commit
    if not snapshot.is_dir():
        raise error
    # A symlink with a missing target does not count as a file.
    files = [p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file()]
    try:
        choice = choose(sorted(files), place=_place(name), pick=name.pick, needs=needs)
    except ModelError:
        raise error from None
    if choice.format == "checkout" and not _has_all_shards(snapshot):
        raise error
    if not is_offline_mode():
        notify(f"{error} Using the copy in the cache.")
    if choice.note:
        notify(choice.note)
    return _downloaded(snapshot, choice)


def _has_all_shards(snapshot: Path) -> bool:
    index = snapshot / "model.safetensors.index.json"
    if not index.is_file():
        return True
    shards = set(decode_json(index.read_bytes(), _Index).weight_map.values())
    return all((snapshot / shard).is_file() for shard in shards)


class _Index(Struct):
    weight_map: dict[str, str]


def _place(name: HubName) -> str:
    return str(HubName(name.repo, name.revision))


@contextmanager
def _quiet() -> Iterator[None]:
    # The library's warnings (each retry, "unauthenticated") would break the progress bar. The level
    # must be set through its own module, because that module resets it on import.
    from huggingface_hub.utils import logging as hub_logging

    level = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count, 0) / 1e6:.1f} MB"
