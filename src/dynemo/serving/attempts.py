"""The instances that were tried for one request, and what they said."""

import logging

from dynemo.errors import (
    DynemoError,
    EngineError,
    EngineLost,
    IngressUnreachable,
    InstanceAway,
    InstanceGone,
    InstanceSilent,
    Overloaded,
    Unavailable,
)
from dynemo.messages.request import Request
from dynemo.trace import trace_id

log = logging.getLogger("dynemo.pool")

#: What one request may spend on instances that do not take it, before it gives up. If three are
#: busy, the others are too. An instance that nobody answers for costs one message, and other
#: requests do not ask it again. If it is silent or cannot connect, it costs seconds.
BUDGET = 15
BUSY, SLOW, GONE = 5, 3, 1


class Attempts:
    """The attempts of one request. `problem` is what the client hears if no instance answers."""

    def __init__(self) -> None:
        self.failed: set[str] = set()
        self.problem: DynemoError = Unavailable("There are no instances now.")
        #: The instance whose engine failed this request before its first token. Another one is
        #: asked once: if it answers, the first is at fault, else the request.
        self.blamed = ""
        self._spent = 0

    @property
    def is_over(self) -> bool:
        return self._spent >= BUDGET

    def refused(self, instance_id: str, error: Unavailable) -> None:
        self.failed.add(instance_id)
        match error:
            case InstanceSilent() | IngressUnreachable():
                self._spent += SLOW
            case InstanceGone() | InstanceAway():
                self._spent += GONE
            case _:
                self._spent += BUSY
        # A busy instance can be asked again later, whatever the others say.
        is_busy = isinstance(self.problem, Overloaded) and not isinstance(error, Overloaded)
        if not (self.blamed or is_busy):  # an engine's error says more
            self.problem = error

    def lost(self, instance_id: str, error: EngineError) -> None:
        self.failed.add(instance_id)
        self.problem = error

    def blame(self, instance_id: str, error: EngineError) -> None:
        self.lost(instance_id, error)
        self.blamed = instance_id

    def begin_again(self) -> None:
        """All instances may be asked again."""
        self.failed.clear()
        self._spent = 0


def is_unreachable(error: Unavailable) -> bool:
    """Whether the next request would fail in the same way. For a silent one, see `is_doubtful`."""
    if isinstance(error, InstanceGone):
        return not (isinstance(error, InstanceSilent) or error.returns_within)
    return isinstance(error, InstanceAway | IngressUnreachable)


def log_move(request: Request, count: int, error: EngineLost) -> None:
    log.warning(
        "Request %s moves to another instance after %d tokens. %s",
        request.id,
        count,
        error,
        extra={"trace_id": trace_id(request.traceparent) or None},
    )
