import pytest

from dynemo.engines.echo.adapter import _delay_seconds
from dynemo.errors import UsageError
from dynemo.messages.spec import EngineSpec
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
