"""What vLLM tells of itself while it works."""

from typing import Any


class Stats:
    """Takes what vLLM's schedulers tell of themselves at each step: one of its stat loggers."""

    def __init__(self) -> None:
        self._told: dict[int, Any] = {}  # by core: with data parallelism there are several

    @property
    def running(self) -> int:
        return sum(stats.num_running_reqs for stats in self._told.values())

    @property
    def kv_use(self) -> float:
        return max((stats.kv_cache_usage for stats in self._told.values()), default=0.0)

    def record(self, scheduler_stats: Any, *_: Any, engine_idx: int = 0, **__: Any) -> None:
        if scheduler_stats is not None:
            self._told[engine_idx] = scheduler_stats

    def record_admission_rejection(self, reason: str) -> None:
        """Its loggers count these; here the request is told."""
