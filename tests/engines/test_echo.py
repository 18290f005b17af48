import asyncio

import pytest

from dynemo.engines.echo.adapter import Echo, _delay_seconds
from dynemo.errors import UsageError
from dynemo.messages.answer import Delta
from dynemo.messages.request import Request, Sampling
from dynemo.messages.spec import EngineSpec
from dynemo.serving.migration import MigrationState, TextCodec
from support.engine_contract import EngineContract


class TestEcho(EngineContract):
    @pytest.fixture
    def spec(self, monkeypatch: pytest.MonkeyPatch) -> EngineSpec:
        monkeypatch.setenv("DYNEMO_TOKEN_ECHO_DELAY_MS", "1")
        return EngineSpec(engine="echo", model="", workdir="")

    @pytest.fixture
    def prompt(self) -> list[int]:
        return list(range(100, 130))


@pytest.mark.parametrize("word", ["", "ten", "-1", "nan", "inf", "1e400", "60001"])
def test_an_invalid_delay(word: str) -> None:
    with pytest.raises(UsageError, match="milliseconds from 0 to 60000, not"):
        _delay_seconds(word)


def test_a_delay() -> None:
    assert _delay_seconds("10") == 0.01
    assert _delay_seconds("0") == 0


@pytest.mark.parametrize("stops", [[3], [1, 2], [1, 2, 3, 4, 5, 6]])
def test_a_stream_that_is_lost_at_any_token_has_its_tail(stops: list[int]) -> None:
    """An echo continues after the stop ids of its prompt."""
    ids = [1, 2, 3, 4, 3, 5, 6]
    request = Request(
        id="r", token_ids=ids, prompt="", max_tokens=99, sampling=Sampling(), stop_ids=stops
    )

    async def deltas(request: Request) -> list[Delta]:
        return [delta async for delta in Echo(99, 0).generate(request)]

    whole = asyncio.run(deltas(request))
    assert [token_id for delta in whole for token_id in delta.token_ids] == ids
    for cut in range(len(whole)):
        progress = MigrationState(request, TextCodec(lambda _: [], lambda _: ""))
        for delta in whole[:cut]:
            progress.take(delta)
        assert progress.complete() is None
        rest = asyncio.run(deltas(progress.rest()))
        got = [token_id for delta in [*whole[:cut], *rest] for token_id in delta.token_ids]
        assert got == ids
