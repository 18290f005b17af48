import asyncio
import os
from pathlib import Path

import pytest

from dynemo.terminal.output import Output


def test_output_for_a_slow_reader_does_not_block_the_loop() -> None:
    data = os.urandom(1_000_000)

    async def main() -> bytes:
        reader, writer = os.pipe()
        output = Output(writer)
        output.send(data)  # without a reader a blocking write would never return
        read = bytearray()

        async def take() -> None:
            while len(read) < len(data):
                read.extend(await asyncio.to_thread(os.read, reader, 65536))

        await asyncio.gather(output.drain(), take())
        output.close()
        os.close(reader)
        os.close(writer)
        return bytes(read)

    assert asyncio.run(main()) == data


def test_a_closed_reader_is_a_broken_pipe() -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        output = Output(writer)
        output.send(b"x" * 1_000_000)
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            await output.drain()
        with pytest.raises(BrokenPipeError):
            output.send(b"more")
        output.close()
        os.close(writer)

    asyncio.run(main())


def test_a_file_gets_it_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        with (tmp_path / "out").open("wb") as file:
            output = Output(file.fileno())
            output.send(b"a" * 10_000)
            assert (tmp_path / "out").stat().st_size == 10_000
            await output.drain()
            output.close()

    asyncio.run(main())


def test_closing_drops_unwritten_output() -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        output = Output(writer)
        output.send(b"x" * 1_000_000)
        output.close()
        output.close()
        await output.drain()
        os.close(reader)
        os.close(writer)

    asyncio.run(main())
