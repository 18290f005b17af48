"""Instances, and their records as discovery holds them."""

from typing import Any

from msgspec import structs

from dynemo.connection.addresses import host_id
from dynemo.messages.records import Capabilities, Instance, InstanceRecord
from dynemo.planes.requests.base import RequestServer


def make_instance(id: str = "i", **fields: Any) -> Instance:
    """Returns an instance that has these fields."""
    instance = Instance(
        id=id,
        engine="fake",
        version="1",
        device="none",
        context_length=1000,
        slots=1,
        capabilities=Capabilities(),
    )
    return structs.replace(instance, **fields)


def make_record(
    instance: str | Instance, server: RequestServer | None = None, **fields: Any
) -> InstanceRecord:
    """Returns the record of an instance, which takes requests at `server`."""
    record = InstanceRecord(
        instance=make_instance(instance) if isinstance(instance, str) else instance,
        namespace="dynemo",
        component="pool",
        endpoint="generate",
        model="m",
        identity="",
        card="",
        host=host_id(),
        addresses=server.reach.addresses if server else [],
        loopback=server.reach.loopback if server else "",
        key=server.key if server else "",
        started=0.0,
        pid=0,
    )
    return structs.replace(record, **fields)
