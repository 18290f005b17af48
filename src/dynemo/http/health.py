"""`GET /live`, `GET /health` and `GET /metrics`: for the operators of the process."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from dynemo.http.access.client import Client
from dynemo.http.exchange import Exchange
from dynemo.metrics import (
    ALL_INSTANCES,
    MAX_INSTANCES,
    Exposition,
    GaugeSample,
    LoadSample,
    Metrics,
)
from dynemo.serving.instance import InstanceState, InstanceStatus
from dynemo.serving.pipeline import Pipeline
from dynemo.serving.served import ServedModel

GAUGES = {
    "dynemo_plane_up": ("Whether a plane of an ingress works now, 0 or 1.", ("plane",)),
    "dynemo_bad_records": ("Records of discovery that could not be used.", ("plane",)),
    "dynemo_instances": ("Registered instances by state.", ("model", "state")),
}


class InstanceHealth(Struct, frozen=True, kw_only=True):
    id: str
    engine: str
    version: str
    device: str
    context_length: int
    slots: int
    running: int
    waiting: int
    kv_use: float
    state: InstanceState
    reason: str | None  #: why it is not `ready`, in sentences


class ModelHealth(Struct, frozen=True, kw_only=True):
    id: str
    context_length: int
    instances: list[InstanceHealth]
    reason: str | None  #: why no instance takes requests


class PlaneHealth(Struct, frozen=True, kw_only=True):
    works: bool
    reason: str | None  #: why it does not work, in sentences


class LeftOutHealth(Struct, frozen=True, kw_only=True):
    """A registered instance that gets no requests."""

    id: str
    model: str
    reason: str


class HealthReport(Struct, frozen=True, kw_only=True):
    """The body of `GET /health`, under 200 as under 503."""

    status: Literal["ok", "unavailable"]
    reason: str | None  #: `loading`, `no instances`, `draining`, or sentences
    loading_seconds: float | None  #: since the server listens, where `loading` is the reason
    models: list[ModelHealth]
    #: Of an ingress: `requests` (without it no request is served) and `discovery` (without it the
    #: known instances still serve).
    planes: dict[str, PlaneHealth]
    left_out: list[LeftOutHealth]  #: at most 100


class Health:
    """`is_draining` says whether this server has been asked to stop."""

    def __init__(
        self, pipeline: Pipeline, metrics: Exposition, is_draining: Callable[[], bool]
    ) -> None:
        self._pipeline = pipeline
        self._metrics = metrics
        self._is_draining = is_draining
        self._started = monotonic()
        metrics.watch_load(self._loads)
        if isinstance(metrics, Metrics):  # a sum over a pool would count a worker's own again
            metrics.watch_gauges(GAUGES, self._gauges)
        metrics.watch_count(
            "dynemo_engine_restarts",
            "Times that this process has restarted its engine.",
            lambda: [(m.name, m.backend.restarts) for m in pipeline.models.values()],
        )
        metrics.watch_count(
            "dynemo_engine_stalls",
            "Times that it did so because the engine had work and made no progress.",
            lambda: [(m.name, m.backend.stalls) for m in pipeline.models.values()],
        )
        metrics.watch_gauge(
            "dynemo_model_ready",
            "1 if an instance of the model can take requests, else 0.",
            lambda: [(m.name, int(not m.backend.trouble)) for m in pipeline.models.values()],
        )

    def report(self, client: Client) -> HealthReport:
        """The models are those that the client may know."""
        trouble = "draining" if self._is_draining() else self._pipeline.trouble
        return HealthReport(
            status="unavailable" if trouble else "ok",
            reason=trouble or None,
            loading_seconds=self._seconds() if trouble == "loading" else None,
            models=[
                _model_health(
                    served,
                    self._instances(served),
                    self._pipeline.source.choose(served).backend.trouble,
                )
                for served in self._pipeline.models.values()
                if client.may_use(served.name)
            ],
            planes={
                name: PlaneHealth(works=not why, reason=why or None)
                for name, why in self._pipeline.source.connections.items()
            },
            left_out=[
                LeftOutHealth(id=each.id, model=each.model, reason=each.reason)
                for each in self._pipeline.source.left_out
                if client.may_use(each.model)
            ][:MAX_INSTANCES],
        )

    def _gauges(self) -> Iterator[GaugeSample]:
        for plane, why in self._pipeline.source.connections.items():
            yield GaugeSample("dynemo_plane_up", (plane,), not why)
            if plane == "discovery":
                bad = self._pipeline.source.bad_records
                yield GaugeSample("dynemo_bad_records", (plane,), bad)
        for served in self._pipeline.models.values():
            states = Counter(status.state for status in self._instances(served))
            for state in get_args(InstanceState):
                yield GaugeSample("dynemo_instances", (served.name, state), states[state])

    def _instances(self, model: ServedModel) -> list[InstanceStatus]:
        """Those of all generations."""
        generations = self._pipeline.source.generations(model)
        return [status for each in generations for status in each.backend.instances]

    def _seconds(self) -> float:
        return round(monotonic() - self._started, 1)

    async def live(self, exchange: Exchange) -> None:
        await exchange.reply(b'{"status":"ok"}')

    async def health(self, exchange: Exchange) -> None:
        report = self.report(exchange.client)
        status = 200 if report.status == "ok" else 503
        await exchange.reply(msgspec.json.encode(report), status=status)

    async def metrics(self, exchange: Exchange) -> None:
        body, content_type = self._metrics.expose(exchange.header(b"accept"))
        await exchange.reply(body, content_type=content_type)

    def _loads(self) -> Iterator[LoadSample]:
        models = [
            (served.name, served.backend, self._instances(served))
            for served in self._pipeline.models.values()
        ]
        is_each = sum(len(instances) for _, _, instances in models) <= MAX_INSTANCES
        for name, backend, instances in models:
            for instance, load, _, _ in instances if is_each else ():
                yield LoadSample(name, instance.id, load.running, load.waiting, load.kv_use)
            if instances and not is_each:
                load = backend.load
                yield LoadSample(name, ALL_INSTANCES, load.running, load.waiting, load.kv_use)


def _model_health(
    served: ServedModel, instances: Sequence[InstanceStatus], trouble: str
) -> ModelHealth:
    return ModelHealth(
        id=served.name,
        context_length=served.context_length,
        instances=[_instance_health(each) for each in instances],
        reason=trouble or None,
    )


def _instance_health(status: InstanceStatus) -> InstanceHealth:
    instance, load = status.instance, status.load
    return InstanceHealth(
        id=instance.id,
        engine=instance.engine,
        version=instance.version,
        device=instance.device,
        context_length=instance.context_length,
        slots=instance.slots,
        running=load.running,
        waiting=load.waiting,
        kv_use=load.kv_use,
        state=status.state,
        reason=status.reason or None,
    )
