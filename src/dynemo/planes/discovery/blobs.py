"""Blobs in a store: by their hash, in chunks, under a lease that everyone who needs them shares.

The lease's number comes from the hash, so that all who need a blob keep one and the same lease
alive. It lies there once, however many workers use it, lives while any of them lives, and runs out
within a minute of the last one's end. Whoever makes the lease writes the chunks; the others wait
while it makes progress, and write what is missing themselves when it does not (it died). So a
hundred workers that find the store empty do not write a tokenizer a hundred times.
"""

import asyncio
import hashlib

from dynemo.errors import Unavailable
from dynemo.planes.discovery.base import BLOBS, LeaseLost, Store

CHUNK = 1024 * 1024  # an etcd request is at most 1.5 MiB
MAX_CHUNKS = 256
TTL = 60  # seconds; much more than the time between two calls of `keep_blob`
_PATIENCE = 2.0  # seconds without progress of another's writing
_POLL = 0.1


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def keep_blob(store: Store, digest: str, data: bytes) -> None:
    """Keeps the blob's lease alive, and writes what is missing. Raises Unavailable."""
    lease = _lease(digest)
    chunks = _chunks(digest, data)
    is_ours = await store.share(lease, TTL)
    missing = await _missing(store, digest, chunks)
    if missing and not is_ours:
        missing = await _let_other_write(store, digest, chunks)
    try:
        for key in missing:
            await store.add(key, chunks[key], lease)
            await store.keep(lease)
    except LeaseLost:
        raise Unavailable(f"{store.name} lost a blob while it was written.") from None


async def read_blob(store: Store, digest: str) -> bytes:
    """Raises Unavailable when it is not there, or not all of it."""
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


async def _let_other_write(store: Store, digest: str, chunks: dict[str, bytes]) -> list[str]:
    loop = asyncio.get_running_loop()
    missing = list(chunks)
    patience_ends = loop.time() + _PATIENCE
    while missing and loop.time() < patience_ends:
        await asyncio.sleep(_POLL)
        left = await _missing(store, digest, chunks)
        if len(left) < len(missing):
            patience_ends = loop.time() + _PATIENCE
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
