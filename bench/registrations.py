"""Registers instances that do not exist: `python -m bench.registrations ETCD COUNT`.

It claims the model's name, stores its card, and puts COUNT records like a worker's under one lease.
It prints a line when all are registered, and exits when its input closes.
"""

import asyncio
import os
import sys
import time
from uuid import uuid4

from msgspec import msgpack

from bench.pool import POOL
from dynemo.connection.addresses import host_id
from dynemo.messages.records import Capabilities, Instance, InstanceRecord
from dynemo.messages.request import Sampling
from dynemo.models.find import find_model
from dynemo.models.load import read_model
from dynemo.planes.discovery.base import instance_key
from dynemo.planes.discovery.etcd.backend import EtcdSettings, open_etcd, split_endpoints
from dynemo.planes.names import parse_name
from dynemo.prompt.card.wire import pack_card
from dynemo.serving.worker import claim_name

_ADDRESS = parse_name(POOL)


def record(model: str, identity: str, card: str) -> InstanceRecord:
    """Returns a record of an unreachable worker."""
    instance = Instance(
        id=uuid4().hex,
        engine="echo",
        version="0",
        device="cpu",
        context_length=8192,
        slots=8,
        capabilities=Capabilities(sampling=[*Sampling.__struct_fields__, "ignore_eos"]),
    )
    return InstanceRecord(
        instance=instance,
        namespace=_ADDRESS.namespace,
        component=_ADDRESS.component,
        endpoint=_ADDRESS.endpoint,
        model=model,
        identity=identity,
        card=card,
        host=host_id(),
        started=time.time(),
        pid=os.getpid(),
    )


async def _register(etcd: str, count: int) -> None:
    found = find_model(None, needs="gguf", engine="llama_cpp")
    card = read_model(found, None, None).card()
    async with open_etcd(EtcdSettings(endpoints=split_endpoints(etcd))) as discovery:
        identity = await claim_name(discovery, _ADDRESS, card)
        digest = await discovery.put_blob(pack_card(card))
        for _ in range(count):
            one = record(card.name, identity.whole, digest)
            await discovery.put(instance_key(_ADDRESS, one.instance.id), msgpack.encode(one))
        print("All instances are registered.", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_register(sys.argv[1], int(sys.argv[2])))
