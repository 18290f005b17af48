"""How much of each thing is measured."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.random_model import ABOUT_100_M, Sizes

CONTEXT = 1024
QUESTION = "What is the capital of South Africa?"


@dataclass(frozen=True)
class Plan:
    rounds: int = 7  #: of tokens/s, each with one of ours and one of the peer's
    tokens: int = 96  #: of an answer whose speed is measured
    firsts: int = 60  #: pairs of TTFT
    starts: int = 11  #: pairs of a start from the shell
    open_streams: int = 400
    cpu_requests: int = 384  #: a multiple of the streams, so that all end together
    connections: int = 512  #: at saturation
    saturations: int = 3  #: rounds
    saturation_requests: int = 8192  #: a round
    instances: int = 1000  #: that are registered
    readies: int = 5  #: starts of an ingress before them, and before few
    choices: int = 30  #: rounds of choices among them
    conversations: int = 40  #: of which each begins with a thousand tokens of its own
    prefixes: int = 2  #: rounds of them all with each router
    random_sizes: Sizes = ABOUT_100_M
    threads: int | None = None  #: of llama.cpp, in ours and the peer's; None: its default

    @property
    def engine_options(self) -> list[str]:
        """llama-server's names; they go to ours after `--`, and into the peer's parameters."""
        return [] if self.threads is None else ["--threads", str(self.threads)]


@dataclass(frozen=True)
class Subject:
    """A model to measure with, and how the table calls it."""

    name: str
    path: Path | None  #: None: the demo model
    has_goal: bool = field(default=True)


def chat(content: str, **more: Any) -> dict[str, Any]:
    """A request that both servers take, with all that decides its cost said in it."""
    return {
        "messages": [{"role": "user", "content": content}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "top_p": 1,
        **more,
    }
