"""All instances of one model as one `Backend`: it picks an instance, and migrates lost answers.

If an instance is lost in the middle of an answer, another one continues it. That one gets the
prompt together with the answer so far, and the rest of the budget. The reader sees one stream, with
nothing missing and nothing twice.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from threading import Lock
from time import monotonic

from msgspec import msgpack, structs

from dynemo.connection.buffer import CancelReader
from dynemo.errors import EngineLost, InstanceGone, PlaneAway, Unavailable
from dynemo.messages.answer import Delta
from dynemo.messages.records import Capabilities, Instance, Load
from dynemo.messages.request import Request
from dynemo.prompt.needs import needs_of_request
from dynemo.router.router import Router
from dynemo.serving.migration import MigrationState, TextCodec
from dynemo.serving.remote import RemoteInstance
from dynemo.trace import trace_id

log = logging.getLogger("dynemo.pool")

_PAUSE = 0.1  # seconds before a retry, when all instances have failed
#: Seconds after which the router gets the reported loads of all instances again.
_REPORT_SECONDS = 1.0
_MAX_UNFIT = 64  # remembered sets of unfit instances

_encode = msgpack.Encoder().encode


class Pool:
    """A `Backend` over the instances that discovery lists."""

    restarts = 0  # the workers restart their engines

    def __init__(self, router: Router, codec: TextCodec, migration_limit: int) -> None:
        self._router = router
        self._codec = codec
        self._migration_limit = migration_limit
        self._remotes: dict[str, RemoteInstance] = {}
        self._combined: Instance | None = None
        self._classes: list[Instance] = []
        self._ids: list[frozenset[str]] = []  # of the instances of each class
        self._unfit: dict[tuple[bool, ...], frozenset[str]] = {}  # by which classes fit
        self._has_changed = False  # since `_refresh`
        self._refreshing = Lock()  # a thread that prepares a long prompt refreshes, too
        self._changed = asyncio.Event()
        self._reported_at = 0.0
        self.moves = 0

    def __len__(self) -> int:
        return len(self._remotes)

    def add(self, remote: RemoteInstance) -> None:
        self._remotes[remote.record.instance.id] = remote
        self._router.add(remote.record.instance.id)
        self._has_changed = True
        self._changed.set()

    def remove(self, instance_id: str) -> None:
        """Sends it no further requests. Its running streams continue."""
        if self._remotes.pop(instance_id, None) is not None:
            self._router.remove(instance_id)
            self._has_changed = True

    @property
    def remotes(self) -> list[RemoteInstance]:
        return list(self._remotes.values())

    @property
    def instance(self) -> Instance | None:
        """All capabilities, the largest context and all slots; None without instances."""
        self._refresh()
        return self._combined

    @property
    def instance_classes(self) -> list[Instance]:
        self._refresh()
        return self._classes

    @property
    def load(self) -> Load:
        loads = [remote.load for remote in self._remotes.values()]
        kv_use = max((load.kv_use for load in loads), default=0.0)
        return Load(sum(x.running for x in loads), sum(x.waiting for x in loads), kv_use)

    @property
    def instances(self) -> list[tuple[Instance, Load]]:
        return [(remote.record.instance, remote.load) for remote in self._remotes.values()]

    @property
    def trouble(self) -> str:
        return "" if self._remotes else "no instances"

    async def generate(
        self,
        request: Request,
        cancel_reader: CancelReader | None = None,
        deadline: float | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """See `Backend.generate`."""
        progress = MigrationState(request, self._codec, deadline)
        failed: set[str] = set()
        moves = 0
        problem: Unavailable | EngineLost = Unavailable("There are no instances now.")
        while True:
            rest = progress.rest()
            chosen = await self._choose(rest, failed, problem, progress.deadline)
            remote = self._remotes[chosen]
            self._router.started(chosen, rest.token_ids)
            rest = _within(rest, remote.record.instance.context_length)
            try:
                async with aclosing(remote.generate(rest, cancel_reader)) as deltas:
                    async for delta in deltas:
                        progress.take(delta)
                        yield progress.adjusted(delta)
                        if delta.finish is not None:
                            return
            except Unavailable as error:
                if isinstance(error, PlaneAway) and progress.deadline is None:
                    raise
                if isinstance(error, InstanceGone) and error.returns_within:
                    progress.wait_at_least(error.returns_within)
                problem = error
            except EngineLost as error:
                problem = error
                if (finish := progress.complete()) is not None:
                    yield Delta(finish=finish)
                    return
                moves += 1
                # Another instance would start the schema of a guided answer from its beginning.
                if moves > self._migration_limit or (request.guide and progress.count):
                    raise
                progress.lost()
                self.moves += 1
                _log_move(request, progress.count, error)
            finally:
                self._router.ended(chosen)
                self._router.reported(chosen, remote.load)
            failed.add(chosen)
            progress.begin_anew()

    async def _choose(
        self,
        request: Request,
        failed: set[str],
        problem: Unavailable | EngineLost,
        deadline: float | None,
    ) -> str:
        """Raises `problem` if no instance is left. A request with a deadline waits until then: its
        instance may come back, or the plane to the others."""
        self._report_loads()
        unfit = self._unfit_for(request)
        chosen = self._pick(request, failed | unfit if failed else unfit)
        if chosen is not None:
            return chosen
        if deadline is None or asyncio.get_running_loop().time() > deadline:
            raise problem
        failed.clear()
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.sleep(_PAUSE)  # all of them have just failed
                while (chosen := self._pick(request, unfit)) is None:
                    self._changed.clear()
                    await self._changed.wait()
                    unfit = self._unfit_for(request)
        except TimeoutError:
            raise problem from None
        return chosen

    def _report_loads(self) -> None:
        """Gives the router the loads that came with heartbeats: other ingresses ask there, too."""
        now = monotonic()
        if now - self._reported_at < _REPORT_SECONDS:
            return
        self._reported_at = now
        for name, remote in self._remotes.items():
            self._router.reported(name, remote.load)

    def _pick(self, request: Request, left_out: AbstractSet[str]) -> str | None:
        """Asks the router. Picks a doubtful instance only if every other one is left out."""
        chosen = self._router.choose(request.token_ids, left_out)
        if chosen is None or not self._remotes[chosen].is_doubtful:
            return chosen
        doubtful = {name for name, remote in self._remotes.items() if remote.is_doubtful}
        return self._router.choose(request.token_ids, left_out | doubtful) or chosen

    def _unfit_for(self, request: Request) -> frozenset[str]:
        """The instances that cannot honour all fields of a request, or have no room for it.

        It compares classes and not instances, of which there may be a thousand.
        """
        needs = needs_of_request(request)
        wanted = 1 if request.is_unbounded else request.max_tokens
        room = len(request.token_ids) + (0 if request.embed else wanted)
        fit = tuple(
            one.context_length >= room and needs.met_by(one.capabilities)
            for one in self.instance_classes
        )
        if (unfit := self._unfit.get(fit)) is None:
            others = [names for names, is_fit in zip(self._ids, fit, strict=True) if not is_fit]
            if len(self._unfit) == _MAX_UNFIT:
                self._unfit.clear()
            unfit = self._unfit[fit] = frozenset().union(*others)
        return unfit

    def _refresh(self) -> None:
        """Recomputes the classes if instances have come or gone since the last call."""
        with self._refreshing:
            if not self._has_changed:
                return
            self._has_changed = False
            alike: dict[bytes, list[Instance]] = {}
            for remote in self.remotes:  # a copy: others may be added meanwhile
                instance = remote.record.instance
                instance_class = _encode((instance.context_length, instance.capabilities))
                alike.setdefault(instance_class, []).append(instance)
            self._classes = [_combine(instances) for instances in alike.values()]
            self._ids = [frozenset(one.id for one in instances) for instances in alike.values()]
            self._unfit = {}
            self._combined = _combine(self._classes) if self._classes else None


def _log_move(request: Request, count: int, error: EngineLost) -> None:
    log.warning(
        "Request %s moves to another instance after %d tokens. %s",
        request.id,
        count,
        error,
        extra={"trace_id": trace_id(request.traceparent) or None},
    )


def _within(request: Request, context_length: int) -> Request:
    """The request, with `max_tokens` cut to this context if the client set none."""
    left = context_length - len(request.token_ids)
    if not request.is_unbounded or request.max_tokens <= left:
        return request
    return structs.replace(request, max_tokens=left)


def _combine(instances: Sequence[Instance]) -> Instance:
    """All capabilities of all, the largest context, and the slots of all."""
    first = instances[0]
    each = [instance.capabilities for instance in instances]
    return structs.replace(
        first,
        engine=", ".join(dict.fromkeys(instance.engine for instance in instances)),
        context_length=max(instance.context_length for instance in instances),
        slots=sum(instance.slots for instance in instances),
        capabilities=Capabilities(
            takes="messages" if any(c.takes == "messages" for c in each) else "tokens",
            tasks=tuple(sorted({name for c in each for name in c.tasks})),
            sampling=sorted({name for c in each for name in c.sampling}),
            guides=sorted({name for c in each for name in c.guides}),
        ),
    )
