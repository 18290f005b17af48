import pytest
from contract import EngineContract

from dynemo.messages import EngineSpec


class TestEcho(EngineContract):
    @pytest.fixture
    def spec(self, monkeypatch: pytest.MonkeyPatch) -> EngineSpec:
        monkeypatch.setenv("DYNEMO_TOKEN_ECHO_DELAY_MS", "1")
        return EngineSpec(engine="echo", model="", workdir="")

    @pytest.fixture
    def prompt(self) -> list[int]:
        return list(range(100, 130))
