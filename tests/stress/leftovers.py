"""Finds the processes, files and keys that a run has left behind."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from dynemo.planes.discovery.base import BLOBS
from dynemo.planes.discovery.etcd.connection import EtcdConnection, EtcdSettings

_LEASE = 8.0  #: seconds after which the keys of a killed process have expired


def marked(variable: str, value: str) -> list[str]:
    """Returns the live processes that have this variable, as `pid name`. Linux only."""
    wanted = f"{variable}={value}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            held = (folder / "environ").read_bytes().split(b"\0")
            name = (folder / "comm").read_text().strip()
        except OSError:
            continue
        if wanted in held and int(folder.name) != os.getpid():
            found.append(f"{folder.name} {name}")
    return found


def files(folders: Sequence[Path]) -> list[str]:
    """Returns everything that is in these folders."""
    return sorted(str(path) for folder in folders for path in folder.iterdir())


async def keys(address: str) -> list[str]:
    """Returns the keys that stay in etcd when the workers' leases have run out.

    A model card stays for up to a minute, because workers share it. It counts only without a lease.
    """
    connection = EtcdConnection(EtcdSettings((address,)))
    request = connection.rpc.RangeRequest(key=b"\0", range_end=b"\0", keys_only=True)
    try:
        for _ in range(int(_LEASE * 4)):
            found = await connection.call("KVStub", "Range", request, seconds=5)
            left = [each for each in found.kvs if not (each.lease and BLOBS in each.key.decode())]
            if not left:
                break
            await asyncio.sleep(0.25)
    finally:
        await connection.close()
    return [each.key.decode() for each in left]
