"""The statistics that vLLM reports while it works."""

from typing import Any


class Stats:
    """A stat logger for vLLM: receives the statistics of its schedulers at each step."""

    def __init__(self) -> None:
        self.steps = 0  #: of all cores
        self._stats: dict[int, Any] = {}  # by core, because data parallelism has several

    @property
    def running(self) -> int:
        return sum(stats.num_running_reqs for stats in self._stats.values())

    @property
    def kv_use(self) -> float:
        return max((stats.kv_cache_usage for stats in self._stats.values()), default=0.0)

    def record(self, scheduler_stats: Any, *_: Any, engine_idx: int = 0, **__: Any) -> None:
        if scheduler_stats is not None:
            self.steps += 1
            self._stats[engine_idx] = scheduler_stats

    def record_admission_rejection(self, reason: str) -> None:
        """vLLM's own loggers count these. Here the request gets an error."""
