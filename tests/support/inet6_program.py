"""A worker, and an ingress that reaches it only at its addresses. Prints the addresses.

`inet6_program.py [ADVERTISE]`
"""

import asyncio
import sys

from msgspec import structs

from dynemo.connection.addresses import ANY
from dynemo.connection.server import EngineHandler
from dynemo.planes.requests.tcp import TcpRequests, tcp_request_server
from dynemo.planes.responses.ingresses import ingress_connections
from dynemo.planes.responses.listen import listen
from dynemo.serving.remote import RemoteInstance
from support.planes_world import FakeEngine, collect, make_request
from support.records import make_record


async def main(advertise: str | None = None) -> None:
    async with (
        listen("127.0.0.1") as responses,
        ingress_connections("w" * 32, EngineHandler(FakeEngine())) as ingresses,
        tcp_request_server(ingresses, ANY, advertise=advertise) as server,
    ):
        record = structs.replace(make_record("w" * 32, server), loopback="")
        async with server.serve(record, ingresses.accept):
            remote = RemoteInstance(record, TcpRequests(responses), responses)
            assert await collect(remote.generate(make_request(1, 3))) == [1, 2, 3]
        print(*record.addresses)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
