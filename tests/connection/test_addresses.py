import asyncio
import socket

import pytest

from dynemo.connection.addresses import (
    ANY,
    Dialable,
    close_connections,
    connect,
    dialable,
    first_of,
    host_id,
    join_address,
    port_of,
    split_address,
    start_server,
)
from dynemo.connection.framed import FramedConnection
from dynemo.errors import UsageError
from dynemo.limits import ADDRESSES


@pytest.mark.parametrize(
    ("text", "expected"),
    [("h:80", ("h", 80)), ("[::1]:80", ("::1", 80)), ("10.0.0.1:65535", ("10.0.0.1", 65535))],
)
def test_an_address_is_split_and_joined(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text) == expected
    assert join_address(*expected) == text


@pytest.mark.parametrize("text", ["", "h", "h:", ":80", "h:0", "h:65536", "h:x", "h:-1", "h:²"])
def test_an_invalid_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        split_address(text)


def test_an_advertised_address_replaces_all_others() -> None:
    assert dialable(ANY, 5000, "node7") == Dialable(["node7:5000"], "")
    assert dialable(ANY, 5000, "node7:80") == Dialable(["node7:80"], "")
    for text in ("2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:5000"):
        assert dialable(ANY, 5000, text) == Dialable(["[2001:db8::1]:5000"], "")
    assert dialable(ANY, 5000, "node7", is_tls=True) == Dialable(["tls://node7:5000"], "")
    assert [port_of(text) for text in (None, "h", "h:80", "::1", "[::1]:80")] == [0, 0, 80, 0, 80]


def test_loopback_is_apart_and_only_for_the_same_host() -> None:
    reach = dialable(ANY, 5000, None)
    assert reach.loopback == "127.0.0.1:5000"
    assert not [address for address in reach.addresses if address.startswith("127.")]
    assert reach.reached_from(host_id()) == [*reach.addresses, "127.0.0.1:5000"]
    assert reach.reached_from("another") == reach.addresses
    alone = dialable("127.0.0.1", 5000, None)
    assert alone == Dialable(["127.0.0.1:5000"], "127.0.0.1:5000")  # 0.1 compares another host id
    assert alone.reached_from(host_id()) == ["127.0.0.1:5000"]
    assert dialable("10.1.2.3", 5000, None) == Dialable(["10.1.2.3:5000"], "")
    many = Dialable([f"10.0.0.{n}:1" for n in range(200)], "")
    assert len(many.reached_from("")) == ADDRESSES


@pytest.mark.parametrize("host", [ANY, "127.0.0.1"])
def test_no_frame_waits_for_another(host: str) -> None:
    async def body() -> None:
        taken: list[FramedConnection] = []

        def make() -> FramedConnection:
            taken.append(FramedConnection(lambda _: None, lambda _: None))
            return taken[-1]

        server = await start_server(make, host, 0, None)
        connection = FramedConnection(lambda _: None, lambda _: None)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await connect(connection, address, None, is_same_host=True)
        await asyncio.sleep(0.05)
        for one in (connection, *taken):
            assert one._transport is not None
            sock = one._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert taken[0].peer.startswith("127.0.0.1:")  # without the prefix ::ffff:
        server.close()
        await close_connections([connection, *taken])

    asyncio.run(body())


def test_the_first_address_that_answers_wins_and_the_rest_is_given_up() -> None:
    ended: list[str] = []

    async def dial(address: str) -> str:
        try:
            if address == "refused":
                raise ConnectionRefusedError("refused")
            await asyncio.sleep(3600 if address == "silent" else 0)
        finally:
            ended.append(address)
        return address.upper()

    async def body() -> None:
        found = await first_of(["silent", "refused", "good", "last"], dial, ended.remove)
        assert found == ("good", "GOOD")
        assert ended == ["refused", "good", "silent"]
        with pytest.raises(ConnectionError, match="refused: refused"):
            await first_of(["refused"], dial, ended.remove)
        with pytest.raises(ConnectionError, match="no address"):
            await first_of([], dial, ended.remove)
        ended.clear()
        dialling = asyncio.create_task(first_of(["silent"], dial, ended.remove))
        await asyncio.sleep(0.01)
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        assert ended == ["silent"]

    asyncio.run(body())
