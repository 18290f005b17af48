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
from dynemo.errors import EngineLost, PlaneAway, Unavailable
from dynemo.messages.answer import Delta
from dynemo.messages.records import Capabilities, Instance, Load
from dynemo.messages.request import Request
from dynemo.prompt.needs import needs_of_request
from dynemo.router.router import Router
from dynemo.serving.migration import MigrationState, TextCodec
from dynemo.serving.remote import RemoteInstance
from dynemo.trace import trace_id

log = logging.getLogger("dynemo.pool")

_PAUSE = 0.1  # seconds before those are asked again that have all failed
#: Seconds that a choice may be behind what the instances have reported. All are looked at then.
_BEHIND_SECONDS = 1.0
_MANY_SORTS = 64  # of requests that other kinds of instances fit

_encode = msgpack.Encoder().encode


class Pool:
    """A `Backend` over the instances that discovery names."""

    restarts = 0  # others start their engines

    def __init__(self, router: Router, words: TextCodec, migration_limit: int) -> None:
        self._router = router
        self._words = words
        self._migration_limit = migration_limit
        self._remotes: dict[str, RemoteInstance] = {}
        self._most: Instance | None = None
        self._classes: list[Instance] = []
        self._names: list[frozenset[str]] = []  # of the instances of each kind
        self._unfit: dict[tuple[bool, ...], frozenset[str]] = {}  # by which kinds fit
        self._has_changed = False  # since `_look`
        self._looking = Lock()  # a thread that prepares a long prompt looks, too
        self._changed = asyncio.Event()
        self._weighed = 0.0
        self.moves = 0

    def __len__(self) -> int:
        return len(self._remotes)

    def add(self, remote: RemoteInstance) -> None:
        self._remotes[remote.record.instance.id] = remote
        self._router.add(remote.record.instance.id)
        self._has_changed = True
        self._changed.set()

    def remove(self, instance_id: str) -> None:
        """No further requests go there; what runs there goes on."""
        if self._remotes.pop(instance_id, None) is not None:
            self._router.remove(instance_id)
            self._has_changed = True

    @property
    def remotes(self) -> list[RemoteInstance]:
        return list(self._remotes.values())

    @property
    def instance(self) -> Instance | None:
        """What the most capable of all could do together; None where there is none."""
        self._look()
        return self._most

    @property
    def instance_classes(self) -> list[Instance]:
        self._look()
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
        self, request: Request, cancel_reader: CancelReader | None = None
    ) -> AsyncGenerator[Delta, None]:
        """See `Backend.generate`."""
        progress = MigrationState(request, self._words)
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
                problem = error
            except EngineLost as error:
                problem = error
                if (finish := progress.complete()) is not None:
                    yield Delta(finish=finish)
                    return
                moves += 1
                # Whoever takes a guided answer on would begin its schema anew in the middle.
                if moves > self._migration_limit or (request.guide and progress.count):
                    raise
                progress.lost()
                self.moves += 1
                log.warning(
                    "request %s moves after %d tokens: %s",
                    request.id,
                    progress.count,
                    error,
                    extra={"trace_id": trace_id(request.traceparent) or None},
                )
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
        """Raises `problem` where nobody is left to ask. A stream that has lost its instance waits
        for somebody until its deadline: that one may come back, or the plane to the others."""
        self._weigh()
        unfit = self._unfit_for(request)
        chosen = self._pick(request, failed | unfit if failed else unfit)
        if chosen is not None:
            return chosen
        if deadline is None or asyncio.get_running_loop().time() > deadline:
            raise problem
        failed.clear()
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.sleep(_PAUSE)  # they have all just failed
                while (chosen := self._pick(request, unfit)) is None:
                    self._changed.clear()
                    await self._changed.wait()
                    unfit = self._unfit_for(request)
        except TimeoutError:
            raise problem from None
        return chosen

    def _weigh(self) -> None:
        """What others ask of an instance is told with its heartbeats, whether or not a stream of
        ours ends there."""
        now = monotonic()
        if now - self._weighed < _BEHIND_SECONDS:
            return
        self._weighed = now
        for name, remote in self._remotes.items():
            self._router.reported(name, remote.load)

    def _pick(self, request: Request, left_out: AbstractSet[str]) -> str | None:
        """A doubtful one only where there is no other. All are looked at when one is met."""
        chosen = self._router.choose(request.token_ids, left_out)
        if chosen is None or not self._remotes[chosen].is_doubtful:
            return chosen
        doubtful = {name for name, remote in self._remotes.items() if remote.is_doubtful}
        return self._router.choose(request.token_ids, left_out | doubtful) or chosen

    def _unfit_for(self, request: Request) -> frozenset[str]:
        """The instances that cannot honour all of a request's fields, or have no room for it. Kinds
        are looked at, and not instances, of which there may be a thousand."""
        needs = needs_of_request(request)
        wanted = 1 if request.is_unbounded else request.max_tokens
        room = len(request.token_ids) + (0 if request.embed else wanted)
        fit = tuple(
            one.context_length >= room and needs.met_by(one.capabilities)
            for one in self.instance_classes
        )
        if (unfit := self._unfit.get(fit)) is None:
            others = [names for names, is_fit in zip(self._names, fit, strict=True) if not is_fit]
            if len(self._unfit) == _MANY_SORTS:
                self._unfit.clear()
            unfit = self._unfit[fit] = frozenset().union(*others)
        return unfit

    def _look(self) -> None:
        """Recomputes what all can do, if instances have come or gone: once for all that come
        together, and for no request but the first one after that."""
        with self._looking:
            if not self._has_changed:
                return
            self._has_changed = False
            alike: dict[bytes, list[Instance]] = {}
            for remote in self.remotes:  # a copy: others may come meanwhile
                instance = remote.record.instance
                kind = _encode((instance.context_length, instance.capabilities))
                alike.setdefault(kind, []).append(instance)
            self._classes = [_together(instances) for instances in alike.values()]
            self._names = [frozenset(one.id for one in instances) for instances in alike.values()]
            self._unfit = {}
            self._most = _together(self._classes) if self._classes else None


def _within(request: Request, context_length: int) -> Request:
    """With what this context leaves for an answer that nobody has set a bound to."""
    left = context_length - len(request.token_ids)
    if not request.is_unbounded or request.max_tokens <= left:
        return request
    return structs.replace(request, max_tokens=left)


def _together(instances: Sequence[Instance]) -> Instance:
    """What the most capable of them could do, with the slots of all."""
    first = instances[0]
    can = [instance.capabilities for instance in instances]
    return structs.replace(
        first,
        engine=", ".join(dict.fromkeys(instance.engine for instance in instances)),
        context_length=max(instance.context_length for instance in instances),
        slots=sum(instance.slots for instance in instances),
        capabilities=Capabilities(
            takes="messages" if any(c.takes == "messages" for c in can) else "tokens",
            tasks=tuple(sorted({name for c in can for name in c.tasks})),
            sampling=sorted({name for c in can for name in c.sampling}),
            guides=sorted({name for c in can for name in c.guides}),
        ),
    )
