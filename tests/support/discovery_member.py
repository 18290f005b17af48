"""A process that registers one key and stays: `discovery_member.py BACKEND WHERE KEY TTL`."""

import asyncio
import sys

from dynemo.planes.discovery.backends import DiscoverySettings, open_backend


async def main(backend: str, where: str, key: str, ttl: float) -> None:
    settings = DiscoverySettings(
        argument=where, servers=where, tls=None, environment={}, lease_ttl=ttl, wait=0
    )
    async with open_backend(backend, settings) as found:
        await found.put(key, b"here")
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    _, backend, where, key, ttl = sys.argv
    asyncio.run(main(backend, where, key, float(ttl)))
