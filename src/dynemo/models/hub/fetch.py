"""One file from the Hub into its cache, so that an interrupted download can be gone on with.

huggingface_hub resumes a cut connection within one download, but removes the partial file when it
ends in any other way, Ctrl-C included. For a file of many gigabytes that is hours. So large files
that come over plain HTTP are fetched here, with its own transfer, into `blobs/ETAG.incomplete` in
its cache (the name that its version 1 used, and resumed from), and handed over when whole. Files in
Xet storage, which cannot be resumed, and small ones go the library's own way.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from typing import Any

from msgspec import Struct

from dynemo.errors import ModelError

#: Smaller files are not worth a second request.
RESUME_FROM = 1 << 20


class HubSource(Struct, frozen=True):
    """Where files come from and go to."""

    repo: str
    commit: str
    endpoint: str | None
    cache: Path

    @property
    def blobs(self) -> Path:
        return self.cache / f"models--{self.repo.replace('/', '--')}" / "blobs"


def fetch(source: HubSource, file: str, size: int | None, revision: str | None = None) -> Path:
    """Downloads `file` unless it is in the cache, and returns its path in the cache's snapshot.

    `revision` is a branch or tag to record as the commit's name in the cache. A large file shows a
    progress bar where stderr is a terminal. Raises what huggingface_hub raises.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.utils.tqdm import tqdm

    class NoBar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

    is_large = size is None or size >= RESUME_FROM
    known = try_to_load_from_cache(source.repo, file, source.cache, source.commit)
    if not isinstance(known, str) and is_large:
        _fetch_blob(source, file)
    return Path(
        hf_hub_download(
            source.repo,
            file,
            revision=revision or source.commit,
            cache_dir=source.cache,
            endpoint=source.endpoint,
            library_name="dynemo-run",
            # A row of bars of a few bytes each would hide the one that matters.
            tqdm_class=None if is_large else NoBar,
        )
    )


def _fetch_blob(source: HubSource, file: str) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    url = hf_hub_url(source.repo, file, revision=source.commit, endpoint=source.endpoint)
    headers = build_hf_headers(library_name="dynemo-run")
    about = get_hf_file_metadata(url, headers=headers, endpoint=source.endpoint)
    if about.etag is None or about.size is None or about.xet_file_data is not None:
        return
    blob = source.blobs / about.etag
    if blob.exists():
        return
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = blob.with_name(f"{about.etag}.incomplete")
    with _opened(partial) as out:
        # Another process may have finished between the look and the lock.
        if out is None or blob.exists():
            return
        have = out.seek(0, os.SEEK_END)
        if have > about.size:
            have = out.truncate(0)
            out.seek(0)
        # The address that redirects, not its target: the client drops the token when the host
        # changes, and keeps the range.
        http_get(
            url,
            out,
            resume_size=have,
            headers=headers,
            expected_size=about.size,
            displayed_filename=file,
        )
        if have:
            _check(out, about.etag, partial, file)
        out.flush()  # before it counts as whole: the disk may be full
        os.replace(partial, blob)


@contextmanager
def _opened(partial: Path) -> Iterator[BufferedRandom | None]:
    """The partial file for this process alone; None where another one is at it already."""
    import fcntl

    with open(os.open(partial, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as out:
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
            return
        yield out


def _check(out: BufferedRandom, etag: str, partial: Path, file: str) -> None:
    # Two halves from two days: an LFS file's tag is its SHA-256, so to be sure costs only a read.
    if len(etag) != 64:
        return
    out.flush()
    out.seek(0)
    if hashlib.file_digest(out, "sha256").hexdigest() != etag:
        partial.unlink()
        raise ModelError(f"the resumed download of {file} came out wrong: run the command again")
