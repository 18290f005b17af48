"""A worker or an ingress as a separate process, for tests that stop or kill it.

`worker` prints its record. `ingress RECORD` sends a request whose answer does not end, and prints a
line for each delta. Both use TCP, with the heartbeats of `world.QUICK`.
"""

import asyncio
import sys

from msgspec import json

from dynemo.connection.heartbeat import Beat
from dynemo.connection.server import EngineHandler
from dynemo.messages.records import InstanceRecord
from dynemo.planes.requests.tcp import TcpRequests, tcp_request_server
from dynemo.planes.responses.ingresses import ingress_connections
from dynemo.planes.responses.listen import listen
from dynemo.serving.remote import RemoteInstance
from support.planes_world import FakeEngine, make_request
from support.records import make_record

BEAT = Beat(ping=0.3, silence=2.5)


async def _worker() -> None:
    engine = FakeEngine()
    async with (
        ingress_connections("w" * 32, EngineHandler(engine), beat=BEAT) as ingresses,
        tcp_request_server(ingresses) as server,
    ):
        engine.delay = 0.05
        record = make_record("w" * 32, server)
        async with server.serve(record, ingresses.accept):
            print(json.encode(record).decode(), flush=True)
            await asyncio.sleep(3600)


async def _ingress(record: InstanceRecord) -> None:
    async with listen("127.0.0.1", beat=BEAT) as responses:
        remote = RemoteInstance(record, TcpRequests(responses), responses)
        async for _ in remote.generate(make_request(1, 100_000)):
            print("delta", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        asyncio.run(_worker())
    else:
        asyncio.run(_ingress(json.decode(sys.argv[2], type=InstanceRecord)))
