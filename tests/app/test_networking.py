"""The address on which a worker and an ingress listen for each other."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynemo.app.networking import _host, ingress_planes
from dynemo.app.settings.options import Config
from dynemo.connection.addresses import ANY, LOOPBACK
from dynemo.connection.interfaces import interface_addresses
from support.etcd_server import EtcdServer, etcd_running
from support.nats_process import NatsProcess

HERE: dict[str, Any] = {"etcd": "127.0.0.1:2379", "nats": "nats://127.0.0.1:4222"}


@pytest.mark.parametrize(
    "settings",
    [
        HERE,
        {"etcd": "localhost:2379,http://[::1]:2379", "nats": "nats://user:pass@localhost:4222"},
        {"etcd": "127.0.0.1", "nats": "127.0.0.1,127.0.0.2:4222"},
        {"etcd": "127.0.0.1:2379", "nats": "nats://10.0.0.1:4222", "request_plane": "tcp"},
        {"etcd": "10.0.0.1:2379", "nats": "nats://10.0.0.1:4222", "discovery": "file"},
    ],
)
def test_with_peers_on_this_host_alone_it_is_loopback(settings: dict[str, Any]) -> None:
    assert _host(Config(**settings)) == LOOPBACK


@pytest.mark.parametrize(
    "settings",
    [
        {**HERE, "etcd": "10.0.0.1:2379"},
        {**HERE, "nats": "nats://10.0.0.1:4222"},
        {**HERE, "etcd": "127.0.0.1:2379,http://etcd-1:2379"},
        {**HERE, "nats": "nats://127.0.0.1:4222,nats://127.0.0.1.example:4222"},
        {**HERE, "nats": "nats://127.0.0.1@10.0.0.1:4222"},
        {**HERE, "advertise": "node7"},
        {**HERE, "tls": Path("certificates")},
    ],
)
def test_with_peers_elsewhere_it_is_every_address(settings: dict[str, Any]) -> None:
    assert _host(Config(**settings)) == ANY


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdServer]:
    yield from etcd_running()


def test_an_ingress_with_servers_on_loopback_listens_there_alone(etcd: EtcdServer) -> None:
    async def body() -> None:
        nats = NatsProcess()
        try:
            async with ingress_planes(Config(etcd=etcd.address, nats=nats.url)) as planes:
                [address] = planes.responses.reach.addresses
                port = int(address.removeprefix("127.0.0.1:"))
                for own in interface_addresses():
                    with pytest.raises(ConnectionRefusedError):
                        await asyncio.open_connection(own, port)
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
        finally:
            nats.stop()

    asyncio.run(body())
