"""A process that registers one key and stays: `discovery_member.py etcd|file WHERE KEY TTL`."""

import asyncio
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from dynemo.planes.discovery.discovery import Discovery
from dynemo.planes.discovery.etcd.backend import EtcdSettings, open_etcd
from dynemo.planes.discovery.file import open_file


async def main(kind: str, where: str, key: str, ttl: float) -> None:
    opened: AbstractAsyncContextManager[Discovery] = (
        open_etcd(EtcdSettings((where,)), lease_ttl=ttl)
        if kind == "etcd"
        else open_file(Path(where), lease_ttl=ttl)
    )
    async with opened as found:
        await found.put(key, b"here")
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    _, kind, where, key, ttl = sys.argv
    asyncio.run(main(kind, where, key, float(ttl)))
