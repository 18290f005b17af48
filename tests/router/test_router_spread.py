"""`least-loaded` with several ingresses, which see each other only in the workers' reports."""

import heapq
import random
from collections.abc import Callable
from itertools import count

import pytest

from dynemo.messages.records import Load, LoadReport
from dynemo.planes.responses.ingresses import REPORT_SECONDS
from dynemo.router.router import make_router

WORKERS = [f"w{n}" for n in range(4)]
NETWORK = 0.001  # seconds that a message takes

Duration = Callable[[random.Random], float]


class Simulation:
    """Ingresses that get requests at random times, and workers that report as they do."""

    def __init__(self, mode: str, shares: list[float], duration: Duration, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.routers = [make_router(mode, seed + n) for n in range(len(shares))]
        for router in self.routers:
            for worker in WORKERS:
                router.add(worker)
        self.duration = duration
        self.running = {worker: [0] * len(shares) for worker in WORKERS}
        self.reported = {worker: [0] * len(shares) for worker in WORKERS}
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        for number, share in enumerate(shares):
            wait = self.random.expovariate(share)
            self.after(wait, lambda n=number, rate=share: self.arrive(n, rate))  # type: ignore[misc]
        for worker in WORKERS:
            self.after(self.random.random(), lambda w=worker: self.report(w))  # type: ignore[misc]

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), action))

    def arrive(self, ingress: int, rate: float) -> None:
        self.after(self.random.expovariate(rate), lambda: self.arrive(ingress, rate))
        router = self.routers[ingress]
        worker = router.choose([])
        assert worker is not None
        router.started(worker, [])
        self.after(NETWORK, lambda: self.start(worker, ingress))

    def start(self, worker: str, ingress: int) -> None:
        self.running[worker][ingress] += 1
        self.after(self.duration(self.random), lambda: self.end(worker, ingress))

    def end(self, worker: str, ingress: int) -> None:
        self.running[worker][ingress] -= 1
        self.after(NETWORK, lambda: self.routers[ingress].ended(worker))

    def report(self, worker: str) -> None:
        for number, router in enumerate(self.routers):
            load = self.load(worker, number)
            elsewhere = sum(self.running[worker]) - load.own
            if elsewhere != self.reported[worker][number]:
                self.reported[worker][number] = elsewhere
                self.after(NETWORK, lambda r=router, x=load: r.reported(worker, x))  # type: ignore[misc]
        self.after(REPORT_SECONDS, lambda: self.report(worker))

    def load(self, worker: str, ingress: int) -> LoadReport:
        streams = self.running[worker]
        return LoadReport(running=sum(streams), streams=sum(streams), own=streams[ingress])

    def spread(self, seconds: float) -> float:
        """The mean over time of the most minus the fewest streams of a worker."""
        total, warm_up = 0.0, seconds / 4
        while self._events[0][0] < seconds:
            at, _, action = heapq.heappop(self._events)
            sizes = [sum(streams) for streams in self.running.values()]
            if self.now >= warm_up:
                total += (max(sizes) - min(sizes)) * (at - self.now)
            self.now = at
            action()
        return total / (seconds - warm_up)


def exponential(generator: random.Random) -> float:
    return generator.expovariate(0.5)


def fixed(_: random.Random) -> float:
    return 2.0


def mixed(generator: random.Random) -> float:
    return generator.choice([0.2, 8.0])


@pytest.mark.parametrize("duration", [exponential, fixed, mixed])
@pytest.mark.parametrize(
    "shares",
    [[30], [15, 15], [27, 3], [7.5] * 4, [24, 2, 2, 2]],
    ids=["one", "two", "two uneven", "four", "four uneven"],
)
def test_the_streams_are_spread(shares: list[float], duration: Duration) -> None:
    assert Simulation("least-loaded", shares, duration).spread(60) <= 2.0


def test_random_spreads_them_worse() -> None:
    assert Simulation("random", [15, 15], exponential).spread(60) > 5


@pytest.mark.parametrize("ingresses", [1, 2, 4])
def test_a_burst_is_spread_evenly(ingresses: int) -> None:
    """No report comes in time. Each ingress counts its own requests."""
    simulation = Simulation("least-loaded", [1e-9] * ingresses, fixed)
    for _ in range(2):
        for _ in range(10 * len(WORKERS)):
            for number in range(ingresses):
                simulation.arrive(number, 1e-9)
        simulation.spread(simulation.now + 1)
        sizes = [sum(streams) for streams in simulation.running.values()]
        assert sizes == [10 * ingresses] * len(WORKERS)
        simulation.spread(simulation.now + 3)


def test_an_ingress_of_an_old_worker_does_not_count_its_requests_twice() -> None:
    """Old workers do not say whose streams they count, and their reports come late."""
    router = make_router("least-loaded", 1)
    for worker in ("i0", "i1"):
        router.add(worker)
    for _ in range(4):
        router.started("i0", [])
        router.started("i1", [])
    report = Load(running=4)
    router.reported("i0", report)
    for _ in range(3):
        router.ended("i0")
        router.reported("i0", report)  # the same one again
    assert [router.choose([]) for _ in range(5)] == ["i0"] * 5
