"""The recorded scenarios of protocol 1 in `tests/wire/protocol_1/`, and the answers in them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import Struct, json, msgpack

from dynemo.errors import DynemoError
from dynemo.wire.failures import PROTOCOL_1
from support import protocol_1

FOLDER = Path(__file__).parent.parent / "wire" / "protocol_1"
TO_WORKER, TO_INGRESS = "ingress>worker", "worker>ingress"


class Event(Struct, frozen=True):
    """One step of a recording; `tests/wire/protocol_1/README.md` lists the fields."""

    plane: str
    event: str
    direction: str = ""
    connection: int = 0
    kind: int = 0
    stream: int = 0
    body: bytes = b""
    subject: str = ""
    reply: str | None = None
    by: str = ""

    @property
    def is_frame(self) -> bool:
        return self.event == "frame"

    @property
    def envelope(self) -> protocol_1.Envelope | None:
        """Returns the envelope of a request, or None for other events and invalid envelopes."""
        is_message = self.event == "message" and bool(self.body)
        is_open = self.is_frame and self.kind == protocol_1.Kind.OPEN
        if self.direction != TO_WORKER or not (is_message or is_open) or self.body == b"\xc1":
            return None
        return msgpack.decode(self.body, type=protocol_1.Envelope)


class Recording(Struct, frozen=True):
    scenario: str
    request_plane: str
    secrets: dict[str, Any]
    events: list[Event]
    answered: Any = None
    load: list[float] | None = None
    record: dict[str, Any] | None = None

    @property
    def instances(self) -> list[str]:
        return [str(name) for name in self.secrets["instances"]]


@dataclass
class Answer:
    """The answer of one stream, joined from its deltas."""

    ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    finish: tuple[str, int, int, int] | None = None
    embedding: bytes = b""
    #: The class by the name that protocol 1 knows, message, param.
    error: tuple[str, str, str | None] | None = None

    def fail(self, error: "DynemoError | protocol_1.DynemoError") -> None:
        names = (kind.__name__ for kind in type(error).__mro__)
        name = next(name for name in names if name in PROTOCOL_1.values())
        self.error = (name, str(error), error.param)

    def take(self, delta: Any) -> None:
        """Adds a delta of the old or of this release."""
        self.ids += delta.token_ids
        self.texts += delta.texts
        self.embedding = delta.embedding or self.embedding
        if (finish := delta.finish) is not None:
            counts = (finish.prompt_tokens, finish.completion_tokens, finish.cached_tokens)
            self.finish = (finish.reason, *counts)


def load(scenario: str) -> Recording:
    return json.decode((FOLDER / f"{scenario}.json").read_bytes(), type=Recording)


def load_raw(name: str) -> Any:
    """Reads a file that has no events."""
    return json.decode((FOLDER / f"{name}.json").read_bytes())


def request_of(recording: Recording, event: Event) -> bytes:
    """Returns the encoded Request of an event, from its envelope or from the REQUEST frame."""
    envelope = event.envelope
    assert envelope is not None
    later = (e.body for e in recording.events if e.is_frame and e.kind == protocol_1.Kind.REQUEST)
    return envelope.request or next(later)


def answers(recording: Recording) -> dict[int, Answer]:
    """Decodes each stream with protocol 1. Returns the answers by recorded stream number."""
    found: dict[int, Answer] = {}
    asked: dict[str | None, int] = {}
    for event in recording.events:
        if (envelope := event.envelope) is not None:
            found[envelope.stream] = Answer()
            asked[event.reply] = envelope.stream
        elif event.direction == TO_INGRESS and event.event == "message":
            if event.body and event.subject in asked:
                found[asked[event.subject]].fail(protocol_1.raised(event.body))
        elif event.direction == TO_INGRESS and event.stream in found:
            _take_frame(found[event.stream], event)
    return found


def _take_frame(answer: Answer, event: Event) -> None:
    read = protocol_1.read(event.kind, event.body, at="ingress")
    match protocol_1.Kind(event.kind):
        case protocol_1.Kind.DATA | protocol_1.Kind.END:
            answer.take(read)
        case protocol_1.Kind.ERROR:
            answer.fail(protocol_1.raised(event.body))
        case protocol_1.Kind.GOAWAY:
            name = "Worker 11111111"
            answer.fail(protocol_1.EngineLost(f"{name} handed back the rest of its answer."))


def steps(recording: Recording) -> Iterator[tuple[Event, list[Event]]]:
    """Yields each event with all later events."""
    for number, event in enumerate(recording.events):
        yield event, recording.events[number + 1 :]
