"""All instances of one model as one `Backend`: it picks an instance, and migrates lost answers.

If an instance is lost in the middle of an answer, another one continues it. That one gets the
prompt together with the answer so far, and the rest of the budget. The reader sees one stream, with
nothing missing and nothing twice.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from itertools import islice
from time import monotonic

from dynemo.connection.buffer import CancelReader
from dynemo.errors import (
    DynemoError,
    EngineError,
    EngineLost,
    HandedBack,
    InstanceAway,
    InstanceSilent,
    PlaneAway,
    Unavailable,
)
from dynemo.messages.answer import Delta
from dynemo.messages.records import Instance, Load
from dynemo.messages.request import Request
from dynemo.router.breaker import Breakers
from dynemo.router.router import Router
from dynemo.serving.attempts import Attempts, is_unreachable, log_move
from dynemo.serving.away import PlaneWait
from dynemo.serving.classes import InstanceClasses
from dynemo.serving.instance import InstanceStatus
from dynemo.serving.migration import MigrationState, TextCodec, within
from dynemo.serving.remote import RemoteInstance
from dynemo.serving.share import OwnShare
from dynemo.serving.suspects import Attempt, Suspects

log = logging.getLogger("dynemo.pool")

_PROBES = 4  # instances that are probed at once
_PAUSE = 0.1  # seconds before a retry, when all instances have failed
#: Seconds after which the router gets the reported loads of all instances again.
_REPORT_SECONDS = 1.0

_ONLY_PROBES = "Instance %s gets requests only now and then until it answers one. %s"


class Pool:
    """A `Backend` over the instances that discovery lists."""

    restarts = stalls = 0  # the workers restart their engines

    def __init__(self, router: Router, codec: TextCodec, migration_limit: int) -> None:
        self._router = router
        self._codec = codec
        self._migration_limit = migration_limit
        self._away = PlaneWait()
        self._remotes: dict[str, RemoteInstance] = {}
        self._classes = InstanceClasses(self._instances)
        self._changed = asyncio.Event()
        self._reported_at = 0.0
        self._share = OwnShare(lambda: self.instances)
        self._breakers = Breakers(lambda: monotonic())
        self._proven: set[str] = set()  # instances that have taken a request or a probe
        self.moves = 0
        self._suspects = Suspects()

    def __len__(self) -> int:
        return len(self._remotes)

    def add(self, remote: RemoteInstance) -> None:
        self._remotes[remote.record.instance.id] = remote
        self._router.add(remote.record.instance.id)
        self._classes.changed()
        self._share.changed()
        self._changed.set()

    def remove(self, instance_id: str) -> None:
        """Sends it no further requests. Its running streams continue."""
        if self._remotes.pop(instance_id, None) is not None:
            self._router.remove(instance_id)
            self._breakers.forget(instance_id)
            self._share.changed()
            self._proven.discard(instance_id)
            self._classes.changed()

    def _instances(self) -> list[Instance]:
        # A copy, since a thread that prepares a long prompt calls this.
        return [remote.record.instance for remote in list(self._remotes.values())]

    @property
    def remotes(self) -> list[RemoteInstance]:
        return list(self._remotes.values())

    @property
    def instance(self) -> Instance | None:
        """All capabilities, the largest context and all slots; None without instances."""
        return self._classes.combined

    @property
    def slots(self) -> int:
        """Those of all instances that take requests, without what others use of them."""
        return self._share.slots

    @property
    def instance_classes(self) -> list[Instance]:
        return self._classes.each

    @property
    def load(self) -> Load:
        loads = [remote.load for remote in self._remotes.values()]
        kv_use = max((load.kv_use for load in loads), default=0.0)
        return Load(sum(x.running for x in loads), sum(x.waiting for x in loads), kv_use)

    @property
    def instances(self) -> list[InstanceStatus]:
        return [self._status(remote) for remote in self._remotes.values()]

    def _status(self, remote: RemoteInstance) -> InstanceStatus:
        instance = remote.record.instance
        if (breaker := self._breakers.of(instance.id)) is not None:
            return InstanceStatus(instance, remote.load, breaker.cause, breaker.reason)
        return InstanceStatus(instance, remote.load, remote.state)

    @property
    def trouble(self) -> str:
        if not self._remotes:
            return "no instances"
        each = self.instances
        if any(self._is_hopeful(status) for status in each):
            return ""
        first = each[0]
        reason = first.reason or f"Instance {first.instance.id[:8]} is {first.state}."
        return f"No instance takes requests now. {reason}"

    def _is_hopeful(self, status: InstanceStatus) -> bool:
        """Whether the next request may be answered there."""
        is_failing = status.state == "failing"
        return status.state == "ready" or (is_failing and self._breakers.is_due(status.instance.id))

    def to_probe(self) -> list[RemoteInstance]:
        """Instances to probe now: those that could not be reached a while ago. If none is known to
        answer, also some of the others."""
        names = self._breakers.due("unreachable")[:_PROBES]
        for name in names:
            self._breakers.probing(name)
        if not self._proven:
            others = (name for name in self._remotes if name not in self._breakers.open)
            names += islice(others, _PROBES)
        return [self._remotes[name] for name in names if name in self._remotes]

    async def probe(self, remote: RemoteInstance) -> None:
        """Notes whether an instance takes requests."""
        name = remote.record.instance.id
        try:
            await remote.probe()
        except Unavailable as error:
            if self._note_unreachable(name, error) or isinstance(error, InstanceSilent | PlaneAway):
                return
        if name in self._remotes:
            self._proven.add(name)
            if self._breakers.reached(name):
                log.info("Instance %s can be reached again.", name)

    async def generate(
        self,
        request: Request,
        cancel_reader: CancelReader | None = None,
        deadline: float | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """See `Backend.generate`."""
        progress = MigrationState(request, self._codec, deadline, limit=self._migration_limit)
        tried = Attempts()
        while True:
            rest = progress.rest()
            chosen = await self._choose(rest, tried, progress.deadline)
            remote = self._remotes[chosen]
            self._router.started(chosen, rest.token_ids)
            rest = within(rest, remote.record.instance.context_length)
            attempt = self._suspects.attempt(chosen, progress)
            try:
                await attempt.start()
                if attempt.has_waited and self._has_better_than(chosen):
                    continue
                async with aclosing(
                    progress.in_characters(remote.generate(rest, cancel_reader))
                ) as deltas:
                    async for delta in deltas:
                        progress.take(delta)
                        if attempt.is_watched:
                            self._advanced(chosen, attempt, tried)
                        yield progress.adjusted(delta)
                        if delta.finish is not None:
                            return
            except Unavailable as error:
                await self._refused(remote, error, tried, progress)
            except EngineLost as error:
                if not (attempt.has_answered or isinstance(error, HandedBack)):
                    self._failed(chosen, error, is_certain=False)
                tried.lost(chosen, error)
                if (finish := progress.complete()) is not None:
                    yield Delta(finish=finish)
                    return
                self._move(progress, attempt, error)
            except EngineError as error:
                if attempt.has_answered:
                    raise
                self._retry_once(chosen, error, tried)
            finally:
                attempt.end()
                self._router.ended(chosen)
                self._router.reported(chosen, remote.load)
            progress.begin_anew()

    async def _choose(self, request: Request, tried: Attempts, deadline: float | None) -> str:
        """Raises `tried.problem` if no instance is left. A request with a deadline waits until
        then: its instance may come back, or the plane to the others."""
        self._report_loads()
        unfit = self._classes.unfit_for(request)
        chosen = None
        if not tried.is_over:
            chosen = self._pick(request, tried.failed | unfit if tried.failed else unfit)
        if chosen is not None:
            return chosen
        if tried.blamed:
            self._failed(tried.blamed, tried.problem, is_certain=False)
            raise tried.problem
        if deadline is None or asyncio.get_running_loop().time() > deadline:
            raise tried.problem
        tried.begin_again()
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.sleep(_PAUSE)  # all of them have just failed
                while (chosen := self._pick(request, unfit)) is None:
                    self._changed.clear()
                    await self._changed.wait()
                    unfit = self._classes.unfit_for(request)
        except TimeoutError:
            raise tried.problem from None
        return chosen

    def _advanced(self, instance_id: str, attempt: Attempt, tried: Attempts) -> None:
        """A delta of a request that is still watched has come."""
        if not attempt.has_answered:
            attempt.has_answered = True
            self._answered(instance_id, tried)
        attempt.check()

    def _answered(self, instance_id: str, tried: Attempts) -> None:
        """The first delta of a request has come."""
        if instance_id in self._remotes:
            self._proven.add(instance_id)
        if instance_id in self._remotes and self._breakers.answered(instance_id):
            log.info("Instance %s answers again.", instance_id)
        if tried.blamed:
            self._failed(tried.blamed, tried.problem, is_certain=True)
            tried.blamed = ""

    async def _refused(
        self, remote: RemoteInstance, error: Unavailable, tried: Attempts, progress: MigrationState
    ) -> None:
        """An instance does not take the request, or no instance can be asked."""
        if isinstance(error, PlaneAway):
            await self._away.wait(remote, error, progress)
            return
        progress.plane_is_up()
        instance_id = remote.record.instance.id
        tried.refused(instance_id, error)
        if error.returns_within:
            progress.wait_at_least(error.returns_within)
        else:
            self._note_unreachable(instance_id, error)

    def _note_unreachable(self, instance_id: str, error: Unavailable) -> bool:
        """Remembers an instance that cannot be asked, or cannot answer. Whether it is one."""
        if not is_unreachable(error) or instance_id not in self._remotes:
            return False
        self._proven.discard(instance_id)
        level = logging.INFO if isinstance(error, InstanceAway) else logging.WARNING
        if self._breakers.unreachable(instance_id, str(error)):
            log.log(level, _ONLY_PROBES, instance_id, error)
        return True

    def _move(self, progress: MigrationState, attempt: Attempt, error: EngineLost) -> None:
        """Lets the rest of an answer move to another instance. Raises the error if it may not."""
        attempt.lost(error)
        progress.search()
        self.moves += 1
        log_move(progress.request, progress.count, error)

    def _retry_once(self, instance_id: str, error: EngineError, tried: Attempts) -> None:
        """An engine has failed a request before the first token. Raises `error` if another one has
        failed it, too: perhaps the request is at fault."""
        if tried.blamed:
            self._failed(tried.blamed, error, is_certain=False)
            self._failed(instance_id, error, is_certain=False)
            raise error
        tried.blame(instance_id, error)

    def _failed(self, instance_id: str, error: DynemoError, *, is_certain: bool) -> None:
        if instance_id in self._remotes and self._breakers.failed(
            instance_id, str(error), is_certain=is_certain
        ):
            log.warning(_ONLY_PROBES, instance_id, error)

    def reported(self, instance_id: str, load: Load) -> None:
        """An instance has reported its load."""
        self._router.reported(instance_id, load)

    def _report_loads(self) -> None:
        """Gives the router the loads that came with heartbeats: other ingresses ask there, too."""
        now = monotonic()
        if now - self._reported_at < _REPORT_SECONDS:
            return
        self._reported_at = now
        for name, remote in self._remotes.items():
            self._router.reported(name, remote.load)

    def _pick(self, request: Request, left_out: AbstractSet[str]) -> str | None:
        """Asks the router. A probe comes first. An instance that is doubtful, and then one whose
        breaker is open, is picked only if all others are left out."""
        failing = self._breakers.open
        if failing:
            for name in self._breakers.due("failing"):
                if name not in left_out:
                    self._breakers.probing(name)
                    return name
            others = self._pick_healthy(request, left_out | failing)
            return others or self._router.choose(request.token_ids, left_out)
        return self._pick_healthy(request, left_out)

    def _pick_healthy(self, request: Request, left_out: AbstractSet[str]) -> str | None:
        chosen = self._router.choose(request.token_ids, left_out)
        if chosen is None or not self._is_doubtful(chosen):
            return chosen
        silent = {name for name, remote in self._remotes.items() if remote.is_doubtful}
        occupied = {name for name in self._remotes if self._suspects.has_suspect(name)}
        for others in (left_out | silent | occupied, left_out | silent):
            if (better := self._router.choose(request.token_ids, others)) is not None:
                return better
        return chosen

    def _has_better_than(self, name: str) -> bool:
        """Whether an instance has gone, or is doubtful, and another one is not."""
        if name in self._remotes and not self._remotes[name].is_doubtful:
            return False
        return any(not remote.is_doubtful for remote in self._remotes.values())

    def _is_doubtful(self, name: str) -> bool:
        return self._remotes[name].is_doubtful or self._suspects.has_suspect(name)
