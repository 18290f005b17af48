"""A pipeline that answers from a script."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dynemo.connection.buffer import CancelReader
from dynemo.engine_api import SETTINGS
from dynemo.errors import ContextLengthExceeded, DynemoError
from dynemo.messages.answer import Delta, Finish, FinishReason, Piece, TextPiece
from dynemo.messages.ask import Ask, Turn
from dynemo.messages.records import Capabilities, Instance, Load
from dynemo.messages.request import Request, Sampling
from dynemo.prompt.prepare import Prepared
from dynemo.serving.pipeline import Job, Pipeline, ServedModel
from support.pieces import ended

#: The elements of an answer: text, a pause in seconds, or an error.
Script = Sequence[str | float | DynemoError]


class StubBackend:
    """A backend that only describes itself."""

    def __init__(self, slots: int, context_length: int) -> None:
        self.instance: Instance | None = Instance(
            id="i",
            engine="stub",
            version="1.0",
            device="cpu",
            context_length=context_length,
            slots=slots,
            capabilities=Capabilities(sampling=list(SETTINGS)),
        )
        self.load = Load()
        self.restarts = self.moves = 0
        self.trouble = ""

    @property
    def instance_classes(self) -> list[Instance]:
        return [self.instance] if self.instance else []

    @property
    def instances(self) -> list[tuple[Instance, Load]]:
        return [(self.instance, self.load)] if self.instance else []

    def generate(
        self, request: Request, cancel_reader: CancelReader | None = None
    ) -> AsyncGenerator[Delta, None]:
        raise NotImplementedError


def words(ask: Ask) -> Script:
    """The default script: repeats the last message, one word per piece."""
    return [f"{word} " for word in said(ask.turns[-1]).split()]


def said(turn: Turn) -> str:
    """Returns the text of a turn."""
    return "".join(turn.texts)


@dataclass
class ScriptedPipeline(Pipeline):
    """A pipeline in which a word is a token.

    `answer` returns each ask's script. `asks` records the asks.
    """

    answer: Callable[[Ask], Script] = words
    context_length: int = 4096
    slots: int = 4
    reason: FinishReason = "stop"
    troubles: list[str] = field(default_factory=list)  #: one for each check, then none
    asks: list[Ask] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    closed_early: int = 0

    def __post_init__(self) -> None:
        backend = StubBackend(self.slots, self.context_length)
        no_card: Any = None  # never read here
        self._models = {"stub": ServedModel("stub", 0, no_card, backend)}
        self._pending: dict[str, Ask] = {}

    @property
    def models(self) -> Mapping[str, ServedModel]:
        return self._models

    @property
    def trouble(self) -> str:
        return self.troubles.pop(0) if self.troubles else ""

    def prepare(self, ask: Ask, traceparent: str = "") -> Job:
        tokens = sum(len(said(turn).split()) for turn in ask.turns)
        if tokens >= self.context_length:
            raise ContextLengthExceeded(
                f"The prompt has {tokens} tokens, the context {self.context_length}."
            )
        id = str(len(self._pending))
        self._pending[id] = ask
        request = Request(
            id=id, token_ids=[0] * tokens, prompt="", max_tokens=1, sampling=Sampling()
        )
        return Job(id, self._models["stub"], Prepared("chat", [request], tokens))

    async def run(
        self, job: Job, cancel_reader: CancelReader | None = None
    ) -> AsyncGenerator[Sequence[Piece], None]:
        ask = self._pending[job.id]
        self.asks.append(ask)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        tokens = 0
        is_over = False
        try:
            for step in self.answer(ask):
                # Yields to the event loop, as real I/O between engine and reader would.
                await asyncio.sleep(step if isinstance(step, float) else 0)
                if isinstance(step, DynemoError):
                    is_over = True
                    raise step
                if isinstance(step, str):
                    tokens += 1
                    yield [TextPiece(0, step, 1)]
            is_over = True
            yield ended(0, "", 1, Finish(self.reason, job.prompt_tokens, tokens + 1))
        finally:
            self.running -= 1
            self.closed_early += not is_over


def after(*errors: DynemoError) -> Callable[[Ask], Script]:
    """Returns a script that fails once with each of `errors`, and then answers."""
    left: Iterator[DynemoError] = iter(errors)

    def answer(ask: Ask) -> Script:
        error = next(left, None)
        return words(ask) if error is None else [error]

    return answer
