"""A model's backend that only describes itself."""

from collections.abc import AsyncGenerator

from dynemo.connection.buffer import CancelReader
from dynemo.messages.answer import Delta
from dynemo.messages.records import Instance, Load
from dynemo.messages.request import Request
from dynemo.serving.instance import InstanceStatus


class FakeBackend:
    """A backend with `instance`, if it is not None, and with `others`."""

    def __init__(self, instance: Instance, load: Load | None = None) -> None:
        self.instance: Instance | None = instance
        self.load = load or Load()
        self.others: list[InstanceStatus] = []
        self.trouble = ""
        self.restarts = self.stalls = self.moves = 0

    @property
    def slots(self) -> int:
        return self.instance.slots if self.instance else 0

    @property
    def instance_classes(self) -> list[Instance]:
        return [self.instance] if self.instance else []

    @property
    def instances(self) -> list[InstanceStatus]:
        own = [InstanceStatus(self.instance, self.load)] if self.instance else []
        return own + self.others

    def generate(
        self,
        request: Request,
        cancel_reader: CancelReader | None = None,
        deadline: float | None = None,
    ) -> AsyncGenerator[Delta, None]:
        raise NotImplementedError
