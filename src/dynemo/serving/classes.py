"""The instances of a pool by class: those of one class have the same capabilities and context.

A choice compares classes and not instances, of which there may be a thousand.
"""

from collections.abc import Callable, Sequence
from threading import Lock

from msgspec import msgpack, structs

from dynemo.messages.records import Capabilities, Instance
from dynemo.messages.request import Request
from dynemo.prompt.needs import needs_of_request

_MAX_UNFIT = 64  # remembered sets of unfit instances

_encode = msgpack.Encoder().encode


class InstanceClasses:
    """The classes of what `read` gives. Call `changed` when that has changed."""

    def __init__(self, read: Callable[[], Sequence[Instance]]) -> None:
        self._read = read
        self._combined: Instance | None = None
        self._each: list[Instance] = []
        self._ids: list[frozenset[str]] = []  # of the instances of each class
        self._unfit: dict[tuple[bool, ...], frozenset[str]] = {}  # by which classes fit
        self._has_changed = False  # since `_refresh`
        self._refreshing = Lock()  # a thread that prepares a long prompt refreshes, too

    def changed(self) -> None:
        self._has_changed = True

    @property
    def combined(self) -> Instance | None:
        """All capabilities, the largest context and all slots; None without instances."""
        self._refresh()
        return self._combined

    @property
    def each(self) -> list[Instance]:
        """One description for each class, with the slots of all its instances."""
        self._refresh()
        return self._each

    def unfit_for(self, request: Request) -> frozenset[str]:
        """The ids of the instances that cannot honour all fields of a request, or have no room."""
        needs = needs_of_request(request)
        wanted = 1 if request.is_unbounded else request.max_tokens
        room = len(request.token_ids) + (0 if request.embed else wanted)
        fit = tuple(
            one.context_length >= room and needs.met_by(one.capabilities) for one in self.each
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
            for instance in self._read():
                instance_class = _encode((instance.context_length, instance.capabilities))
                alike.setdefault(instance_class, []).append(instance)
            self._each = [_combine(instances) for instances in alike.values()]
            self._ids = [frozenset(one.id for one in instances) for instances in alike.values()]
            self._unfit = {}
            self._combined = _combine(self._each) if self._each else None


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
            gives="text" if any(c.gives == "text" for c in each) else "tokens",
            shows_control=all(c.gives == "tokens" or c.shows_control for c in each),
            tasks=tuple(sorted({name for c in each for name in c.tasks})),
            sampling=sorted({name for c in each for name in c.sampling}),
            guides=sorted({name for c in each for name in c.guides}),
            continues=sorted({name for c in each for name in c.continues}),
        ),
    )
