"""Downloads one file from the Hub into its cache, so that an interrupted download can be resumed.

huggingface_hub resumes a broken connection within one download. But it removes the partial file if
the download ends in any other way, Ctrl-C included. For a file of many gigabytes that costs hours.
So this module downloads large files over plain HTTP itself, with the library's own transfer. It
writes to `blobs/ETAG.incomplete` in the cache, the name that version 1 of the library used and
resumed from, and hands over the complete file. Small files, and files in Xet storage, which cannot
be resumed, are downloaded by the library.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from typing import Any

from msgspec import Struct

from dynemo.errors import ModelError
from dynemo.spelling import quoted

#: Smaller files are not worth a second request.
RESUME_FROM = 1 << 20
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+=.-]{0,127}")


class HubSource(Struct, frozen=True):
    """The origin and the destination of a repository's files."""

    repo: str
    commit: str
    endpoint: str | None
    cache: Path

    @property
    def blobs(self) -> Path:
        return self.cache / f"models--{self.repo.replace('/', '--')}" / "blobs"


def fetch(source: HubSource, file: str, size: int | None, revision: str | None = None) -> Path:
    """Downloads `file` unless it is in the cache. Returns its path in the cache's snapshot.

    `revision` is a branch or tag that the cache records as a name of the commit. A large file shows
    a progress bar if stderr is a terminal. Raises huggingface_hub's exceptions and ModelError.
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
            # Many bars of a few bytes each would hide the important one.
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
    if not _TAG.fullmatch(about.etag):  # it becomes a file's name
        raise ModelError(f"The Hub names {quoted(file)} by a tag that is not valid.")
    blob = source.blobs / about.etag
    if blob.exists():
        return
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = blob.with_name(f"{about.etag}.incomplete")
    with _opened(partial) as out:
        # Another process may have finished before this one got the lock.
        if out is None or blob.exists():
            return
        have = out.seek(0, os.SEEK_END)
        if have > about.size:
            have = out.truncate(0)
            out.seek(0)
        # This is the URL that redirects, not its target: the client drops the token when the host
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
        out.flush()  # before the file counts as complete: the disk may be full
        os.replace(partial, blob)


@contextmanager
def _opened(partial: Path) -> Iterator[BufferedRandom | None]:
    """Opens the partial file exclusively. Yields None if another process holds it."""
    import fcntl

    with open(os.open(partial, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as out:
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
            return
        yield out


def _check(out: BufferedRandom, etag: str, partial: Path, file: str) -> None:
    # The two halves may come from different days. An LFS file's tag is its SHA-256, so one read is
    # enough to check.
    if len(etag) != 64:
        return
    out.flush()
    out.seek(0)
    if hashlib.file_digest(out, "sha256").hexdigest() != etag:
        partial.unlink()
        raise ModelError(f'The resumed download of "{file}" is corrupt. Run the command again.')
