"""Blobs in a store: under their hash, in chunks, with a lease that all their users share.

The lease's number comes from the hash, so that all users of a blob keep the same lease alive. The
store holds a blob once, for any number of workers. It expires within a minute after its last user
has gone. The process that makes the lease writes the chunks. The others wait while it makes
progress; if it stops, they write the missing chunks themselves. So a hundred workers that find the
store empty write a tokenizer once.
"""

import asyncio
import hashlib

from dynemo.errors import Unavailable
from dynemo.limits import DISCOVERY_VALUE_BYTES
from dynemo.planes.discovery.base import BLOBS, LeaseLost, Store

CHUNK = DISCOVERY_VALUE_BYTES  # an etcd request is at most 1.5 MiB
MAX_CHUNKS = 256
TTL = 60  # seconds; much more than the time between two calls of `keep_blob`
_STALL_SECONDS = 2.0  # without progress of the process that writes
_POLL = 0.1


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def keep_blob(store: Store, digest: str, data: bytes) -> None:
    """Keeps the blob's lease alive, and writes missing chunks. Raises Unavailable."""
    lease = _lease(digest)
    chunks = _chunks(digest, data)
    is_ours = await store.share(lease, TTL)
    missing = await _missing(store, digest, chunks)
    if missing and not is_ours:
        missing = await _wait_for_writer(store, digest, chunks)
    try:
        for key in missing:
            await store.add(key, chunks[key], lease)
            await store.keep(lease)
    except LeaseLost:
        raise Unavailable(f"The lease of a blob expired while {store.name} stored it.") from None


async def read_blob(store: Store, digest: str) -> bytes:
    """Raises Unavailable if it is missing or incomplete."""
    parts: list[bytes] = []
    for number in range(MAX_CHUNKS):
        part = await store.get(_key(digest, number))
        if part is None:
            break
        parts.append(part)
    data = b"".join(parts)
    if digest_of(data) != digest:
        state = "incomplete" if parts else "missing"
        raise Unavailable(f"The blob {digest[:12]} is {state} in {store.name}.")
    return data


async def _wait_for_writer(store: Store, digest: str, chunks: dict[str, bytes]) -> list[str]:
    """Waits while another process makes progress. Returns the chunks that are still missing."""
    loop = asyncio.get_running_loop()
    missing = list(chunks)
    deadline = loop.time() + _STALL_SECONDS
    while missing and loop.time() < deadline:
        await asyncio.sleep(_POLL)
        left = await _missing(store, digest, chunks)
        if len(left) < len(missing):
            deadline = loop.time() + _STALL_SECONDS
        missing = left
    return missing


async def _missing(store: Store, digest: str, chunks: dict[str, bytes]) -> list[str]:
    there = set(await store.keys(f"{BLOBS}{digest}/"))
    return [key for key in chunks if key not in there]


def _chunks(digest: str, data: bytes) -> dict[str, bytes]:
    starts = range(0, len(data), CHUNK) or (0,)
    return {_key(digest, n): data[at : at + CHUNK] for n, at in enumerate(starts)}


def _key(digest: str, number: int) -> str:
    return f"{BLOBS}{digest}/{number:08}"


def _lease(digest: str) -> int:
    return int(digest[:15], 16) or 1  # 60 bits: a lease's number is a positive i64
