"""A worker's way from its engine host to an ingress: frames go on as they are."""

from dynemo.answers import Outlet
from dynemo.runtime.streams import Inbox
from dynemo.wire.frames import Kind


class Relay(Inbox):
    """Sends what comes on at once, not decoded; no task is woken for it.

    It keeps, and gives to who takes, only what comes while the outlet takes nothing more, what
    follows on that until it is taken, and the end.
    """

    __slots__ = ("_link", "_stream", "sent")

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self.sent = 0  #: frames that were sent on
        self._link = outlet.link
        self._stream = outlet.stream

    def data(self, body: bytes) -> bool:
        if self._held is None and self._link.is_writable:
            self._link.send(Kind.DATA, self._stream, body)
            self.sent += 1
            return True
        return super().data(body)
