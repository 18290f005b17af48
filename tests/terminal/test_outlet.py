import asyncio
import os
from pathlib import Path

import pytest

from dynemo.terminal.output import Output


def test_what_the_reader_is_not_ready_for_waits_without_blocking_the_loop() -> None:
    data = os.urandom(1_000_000)

    async def main() -> bytes:
        reader, writer = os.pipe()
        outlet = Output(writer)
        outlet.send(data)  # without a reader a blocking write would never return
        read = bytearray()

        async def take() -> None:
            while len(read) < len(data):
                read.extend(await asyncio.to_thread(os.read, reader, 65536))

        await asyncio.gather(outlet.drain(), take())
        outlet.close()
        os.close(reader)
        os.close(writer)
        return bytes(read)

    assert asyncio.run(main()) == data


def test_a_closed_reader_is_a_broken_pipe() -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        outlet = Output(writer)
        outlet.send(b"x" * 1_000_000)
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            await outlet.drain()
        with pytest.raises(BrokenPipeError):
            outlet.send(b"more")
        outlet.close()
        os.close(writer)

    asyncio.run(main())


def test_a_file_gets_it_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        with (tmp_path / "out").open("wb") as file:
            outlet = Output(file.fileno())
            outlet.send(b"a" * 10_000)
            assert (tmp_path / "out").stat().st_size == 10_000
            await outlet.drain()
            outlet.close()

    asyncio.run(main())


def test_closing_forgets_what_waits() -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        outlet = Output(writer)
        outlet.send(b"x" * 1_000_000)
        outlet.close()
        outlet.close()
        await outlet.drain()
        os.close(reader)
        os.close(writer)

    asyncio.run(main())
