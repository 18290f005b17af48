"""The amount of each measurement."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.random_model import ABOUT_100_M, Sizes

CONTEXT = 1024
QUESTION = "What is the capital of South Africa?"


@dataclass(frozen=True)
class Plan:
    rounds: int = 7  #: of tokens/s, each with one run of ours and one of the peer
    tokens: int = 96  #: per answer whose speed is measured
    firsts: int = 60  #: pairs of TTFT (time to first token)
    starts: int = 11  #: pairs of starts from the shell
    open_streams: int = 400
    cpu_requests: int = 384  #: a multiple of the streams, so that all end at the same time
    connections: int = 512  #: at saturation
    saturations: int = 3  #: rounds
    saturation_requests: int = 8192  #: per round
    neighbour_tokens: int = 500  #: per stream beside which another client sends guides
    overload_seconds: float = 120  #: at four times the capacity
    instances: int = 1000  #: registered instances
    readies: int = 5  #: starts of an ingress with many instances, and with few
    choices: int = 30  #: rounds of choices among them
    conversations: int = 40  #: each starts with its own thousand tokens
    prefixes: int = 2  #: rounds of all conversations per router
    random_sizes: Sizes = ABOUT_100_M
    threads: int | None = None  #: of llama.cpp, for ours and the peer; None: its default

    @property
    def engine_options(self) -> list[str]:
        """llama-server's options: ours gets them after `--`, the peer as parameters."""
        return [] if self.threads is None else ["--threads", str(self.threads)]


@dataclass(frozen=True)
class Subject:
    """A model to measure with, and its name in the table."""

    name: str
    path: Path | None  #: None: the demo model
    has_goal: bool = field(default=True)


def chat(content: str, **more: Any) -> dict[str, Any]:
    """Returns a request for both servers. It sets everything that affects its cost."""
    return {
        "messages": [{"role": "user", "content": content}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "top_p": 1,
        **more,
    }
