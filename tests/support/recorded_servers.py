"""The recorded scenarios of a pool, and NATS servers for them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.nats_process import NatsProcess

OVER_NATS = (
    "answer_tokens", "answer_text", "embedding", "request_guided", "request_migrated",
    "request_all_fields", "request_large", "cancel", "late_open", "drain", "heartbeats",
    "engine_lost", "refusals",
)  # fmt: skip
OVER_TCP = ("tcp", "tcp_refusals")

#: The server of `request_large` refuses larger messages.
MAX_PAYLOAD = 5120


class RecordedServers:
    """Starts each server when a test first needs it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: dict[bool, NatsProcess] = {}

    def url(self, scenario: str) -> str:
        is_small = scenario == "request_large"
        if is_small not in self._started:
            config = self._folder / f"{is_small}.conf"
            config.write_text(f"max_payload: {MAX_PAYLOAD if is_small else 1024 * 1024}")
            self._started[is_small] = NatsProcess("-c", str(config))
        return self._started[is_small].url

    def stop(self) -> None:
        for server in self._started.values():
            server.stop()


@pytest.fixture(scope="module")
def nats_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordedServers]:
    found = RecordedServers(tmp_path_factory.mktemp("nats"))
    yield found
    found.stop()
