"""Defines all counters and histograms.

Every label has a bounded set of values. `model` is the name of a served model, or `-` if a request
names no served model. `key` is the name of an API key, of which a file of keys has a bounded
number. `instance` is an id, or `all` if there are more than `MAX_INSTANCES`.
`status` is an HTTP status; 499 means that the client disconnected. An error after the headers
counts under the status that it would have had before them. `outcome` is how a worker's answer
ended: `finished`, `cancelled` (or handed back: the ingress continues on another worker), `lost`
(the engine ended during the answer), `failed`, or `refused`.

A worker's metrics have their own names. Otherwise the sum over an ingress and its workers would
count each request twice.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

NO_MODEL = "-"
MAX_INSTANCES = 100
ALL_INSTANCES = "all"

_TTFT = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
_ITL = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5)
_DURATION = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class LoadSample(NamedTuple):
    """The last reported load of one engine, or of all engines of one model together."""

    model: str
    instance: str
    running: float
    waiting: float
    kv_use: float


class GaugeSample(NamedTuple):
    name: str
    labels: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """One model's metrics with the label already bound, so that a token costs no lookup."""

    in_flight: Gauge
    queued: Gauge
    wait: Histogram
    ttft: Histogram
    itl: Histogram
    input_tokens: Counter
    cached_tokens: Counter
    output_tokens: Counter


class Exposition:
    """The metrics of every process: its own registry, process statistics and the load of its
    engines.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        tasks = Gauge("dynemo_tasks", "Tasks of the event loop.", registry=self.registry)
        tasks.set_function(_count_tasks)

    def watch_load(self, read: Callable[[], Iterable[LoadSample]]) -> None:
        """Adds gauges of the engines' load, read at each scrape. Call it once per process."""
        self.registry.register(_LoadCollector(read))

    def watch_gauges(
        self,
        gauges: Mapping[str, tuple[str, tuple[str, ...]]],
        read: Callable[[], Iterable[GaugeSample]],
    ) -> None:
        """Adds gauges whose values are kept elsewhere and read at each scrape. `gauges` has a text
        and the labels of each name."""
        self.registry.register(_GaugeCollector(gauges, read))

    def watch_count(
        self, name: str, text: str, read: Callable[[], Iterable[tuple[str, int]]]
    ) -> None:
        """Adds a counter whose value per model is kept elsewhere and read at each scrape."""
        self.registry.register(_ValueCollector(partial(CounterMetricFamily, name, text), read))

    def watch_gauge(
        self, name: str, text: str, read: Callable[[], Iterable[tuple[str, int]]]
    ) -> None:
        """Adds a gauge whose value per model is kept elsewhere and read at each scrape."""
        self.registry.register(_ValueCollector(partial(GaugeMetricFamily, name, text), read))

    def expose(self, accept: str) -> tuple[bytes, str]:
        """Returns all metrics as text in the format of the Accept header, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class Metrics(Exposition):
    """The metrics of a process that takes requests over HTTP."""

    def __init__(self) -> None:
        super().__init__()
        registry = self.registry
        counter = partial(Counter, labelnames=["model"], registry=registry)
        gauge = partial(Gauge, labelnames=["model"], registry=registry)
        histogram = partial(Histogram, labelnames=["model"], registry=registry)
        self.requests = Counter(
            "dynemo_requests", "Requests that ended.", ["model", "status"], registry=registry
        )
        self.duration = Histogram(
            "dynemo_request_duration_seconds",
            "Time from a request's arrival to the end of its answer.",
            ["model", "status"],
            buckets=_DURATION,
            registry=registry,
        )
        self._rejected = Counter(
            "dynemo_requests_rejected",
            "Requests that found no room or no instance, or whose time was over.",
            ["model", "reason"],
            registry=registry,
        )
        self._in_flight = gauge("dynemo_requests_in_flight", "Chat requests in flight.")
        text = "Chat requests in flight that have no token yet."
        self._queued = gauge("dynemo_requests_queued", text)
        text = "Time that a request waited for its turn at the engine."
        self._wait = histogram("dynemo_queue_wait_seconds", text, buckets=_TTFT)
        text = "Time from a request's arrival to its first token."
        self._ttft = histogram("dynemo_time_to_first_token_seconds", text, buckets=_TTFT)
        text = "Time between tokens of one choice. Tokens that arrive together count as one "
        text += "observation of their mean."
        self._itl = histogram("dynemo_inter_token_latency_seconds", text, buckets=_ITL)
        self._input = counter("dynemo_input_tokens", "Prompt tokens of accepted requests.")
        text = "Prompt tokens of ended answers that were in the engine's cache."
        self._cached = counter("dynemo_cached_tokens", text)
        self._output = counter("dynemo_output_tokens", "Tokens generated.")
        self._models: dict[str, ModelMetrics] = {}
        self._keys = _key_counters(registry)

    def of(self, model: str) -> ModelMetrics:
        """Returns the metrics of a served model. Every name passed here stays in memory."""
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = ModelMetrics(
                in_flight=self._in_flight.labels(model),
                queued=self._queued.labels(model),
                wait=self._wait.labels(model),
                ttft=self._ttft.labels(model),
                itl=self._itl.labels(model),
                input_tokens=self._input.labels(model),
                cached_tokens=self._cached.labels(model),
                output_tokens=self._output.labels(model),
            )
        return found

    def rejected(self, model: str, reason: str) -> None:
        """Counts one request that had no room, no instance or no time. `reason` is a code."""
        self._rejected.labels(model, reason).inc()

    def ended(self, model: str, status: int, seconds: float) -> None:
        """Counts one request. `model` is a served model or `NO_MODEL`."""
        self.requests.labels(model, str(status)).inc()
        self.duration.labels(model, str(status)).observe(seconds)

    def count_key(self, key: str, model: str, prompt: int, cached: int, completion: int) -> None:
        """Counts one request of a key, by the key's name."""
        for counter, amount in zip(self._keys, (1, prompt, cached, completion), strict=True):
            counter.labels(key, model).inc(amount)


def _key_counters(registry: CollectorRegistry) -> list[Counter]:
    """Requests, and prompt, cached and generated tokens."""
    return [
        Counter(f"dynemo_key_{name}", text, ["key", "model"], registry=registry)
        for name, text in (
            ("requests", "Requests of a key that ended."),
            ("input_tokens", "Prompt tokens of a key's requests that ended."),
            ("cached_tokens", "Those of them that were in the engine's cache."),
            ("output_tokens", "Tokens generated for a key."),
        )
    ]


class WorkerMetrics(Exposition):
    """The metrics of a worker and its one model."""

    def __init__(self, model: str) -> None:
        super().__init__()
        registry = self.registry

        def counter(name: str, text: str) -> Counter:
            return Counter(f"dynemo_worker_{name}", text, ["model"], registry=registry)

        self._model = model
        self._requests = Counter(
            "dynemo_worker_requests",
            "Answers that ended, and requests that were refused.",
            ["model", "outcome"],
            registry=registry,
        )
        self._duration = Histogram(
            "dynemo_worker_request_duration_seconds",
            "Time from a request's start to the end of its answer.",
            ["model", "outcome"],
            buckets=_DURATION,
            registry=registry,
        )
        self.in_flight = Gauge(
            "dynemo_worker_requests_in_flight",
            "Requests in flight.",
            ["model"],
            registry=registry,
        ).labels(model)
        self._input = counter("input_tokens", "Prompt tokens of finished answers.").labels(model)
        self._cached = counter(
            "cached_tokens", "Prompt tokens of finished answers that were in the engine's cache."
        ).labels(model)
        self._output = counter(
            "output_tokens",
            "Tokens generated, including those received of answers that did not finish.",
        ).labels(model)

    def ended(self, outcome: str, seconds: float) -> None:
        """Counts one answer. `seconds` is its duration."""
        self._requests.labels(self._model, outcome).inc()
        self._duration.labels(self._model, outcome).observe(seconds)

    def refused(self) -> None:
        """Counts a request that was refused without an answer."""
        self._requests.labels(self._model, "refused").inc()

    def tokens(self, prompt: int, cached: int, completion: int) -> None:
        self._input.inc(prompt)
        self._cached.inc(cached)
        self._output.inc(completion)


def _count_tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # read outside of a loop
        return 0


class _LoadCollector(Collector):
    def __init__(self, read: Callable[[], Iterable[LoadSample]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return _load_families()

    def collect(self) -> Iterator[Metric]:
        families = _load_families()
        for sample in self._read():
            for family, value in zip(families, sample[2:], strict=True):
                family.add_metric([sample.model, sample.instance], value)
        yield from families


class _GaugeCollector(Collector):
    def __init__(
        self,
        gauges: Mapping[str, tuple[str, tuple[str, ...]]],
        read: Callable[[], Iterable[GaugeSample]],
    ) -> None:
        self._gauges, self._read = gauges, read

    def _families(self) -> dict[str, GaugeMetricFamily]:
        return {
            name: GaugeMetricFamily(name, text, labels=labels)
            for name, (text, labels) in self._gauges.items()
        }

    def describe(self) -> Iterable[Metric]:
        return self._families().values()

    def collect(self) -> Iterable[Metric]:
        families = self._families()
        for sample in self._read():
            families[sample.name].add_metric(sample.labels, sample.value)
        return families.values()


class _ValueCollector(Collector):
    def __init__(
        self,
        make: Callable[..., CounterMetricFamily | GaugeMetricFamily],
        read: Callable[[], Iterable[tuple[str, int]]],
    ) -> None:
        self._make, self._read = make, read

    def describe(self) -> Iterable[Metric]:
        return [self._make(labels=["model"])]

    def collect(self) -> Iterator[Metric]:
        family = self._make(labels=["model"])
        for model, value in self._read():
            family.add_metric([model], value)
        yield family


def _load_families() -> list[GaugeMetricFamily]:
    labels = ["model", "instance_id"]  # Prometheus adds its own label `instance` to each target
    return [
        GaugeMetricFamily("dynemo_engine_running", "Sequences being computed.", labels=labels),
        GaugeMetricFamily(
            "dynemo_engine_waiting", "Sequences in the engine's queue.", labels=labels
        ),
        GaugeMetricFamily(
            "dynemo_engine_kv_use",
            "Share of the KV cache in use, 0 to 1; the highest if several instances share one "
            "series.",
            labels=labels,
        ),
    ]
