"""The one path: preprocess -> route -> instance -> postprocess."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from dynemo.answer.output import OutputProcessor
from dynemo.answer.stops import StopAutomaton
from dynemo.connection.buffer import CancelReader
from dynemo.errors import Unavailable, UnknownModel
from dynemo.limits import RENDER_PROCESSES
from dynemo.messages.answer import FinishPiece, Piece
from dynemo.messages.ask import Ask, merged
from dynemo.messages.records import Instance
from dynemo.prompt.card.card import Card
from dynemo.prompt.errors import RenderTooLong
from dynemo.prompt.needs import capable_instances, needs_of_ask
from dynemo.prompt.prepare import Prepared, prepare
from dynemo.prompt.render import Render, render_prompt
from dynemo.serving.instance import Backend
from dynemo.serving.rendering import render_apart
from dynemo.serving.room import Place
from dynemo.spelling import quoted, with_reason


@dataclass(frozen=True)
class ServedModel:
    name: str
    created: int  #: unix seconds
    card: Card
    backend: Backend

    @property
    def context_length(self) -> int:
        """Tokens that one sequence may hold; the model's own limit until the engine has said."""
        instance = self.backend.instance
        return instance.context_length if instance is not None else self.card.context_length


@dataclass(frozen=True)
class Job:
    """An accepted ask: rendered, tokenized, and within limits. Nothing runs yet."""

    id: str  #: hex, unique
    model: ServedModel
    prepared: Prepared

    @property
    def prompt(self) -> str:
        return self.prepared.requests[0].prompt

    @property
    def prompt_tokens(self) -> int:
        return self.prepared.prompt_tokens

    @property
    def choices(self) -> int:
        """The number of sequences. Each is a choice and has an index in the answer."""
        return len(self.prepared.requests)


class Pipeline:
    """All models that this process serves."""

    def __init__(self, models: Mapping[str, ServedModel], *, defaults: Ask) -> None:
        self._models = models
        self._defaults = defaults
        self._processes = asyncio.Semaphore(RENDER_PROCESSES)

    @property
    def models(self) -> Mapping[str, ServedModel]:
        return self._models

    @property
    def trouble(self) -> str:
        """Why no request can be served now (`loading`, ...); else empty."""
        troubles = [model.backend.trouble for model in self._models.values()]
        return "" if not all(troubles) else next(iter(troubles), "no instances")

    async def accept(
        self,
        ask: Ask,
        traceparent: str = "",
        *,
        allowed: frozenset[str] | None = None,
        is_long: bool = False,
    ) -> Job:
        """Prepares an ask without holding up the event loop. Raises what `prepare` raises.

        `is_long`: a thread renders and tokenizes it. A rendering that needs many steps gets a
        process of its own.
        """
        work = partial(self.prepare, ask, traceparent, allowed=allowed)
        try:
            return await asyncio.to_thread(work) if is_long else work()
        except RenderTooLong:
            async with self._processes:
                return await asyncio.to_thread(work, render=render_apart)

    def prepare(
        self,
        ask: Ask,
        traceparent: str = "",
        *,
        allowed: frozenset[str] | None = None,
        render: Render = render_prompt,
    ) -> Job:
        """Raises RequestError (UnknownModel, ContextLengthExceeded, UnsupportedField, ...), and
        Unavailable while no instance could answer. RenderTooLong: only `render_apart` can do it.

        `ask.model` None means the first model. `traceparent` goes to the engine. Models outside
        `allowed` are unknown; None allows all.
        """
        ask = merged(ask, self._defaults)
        model, instances = self._find_ready(ask.model, allowed)
        job_id = uuid4().hex
        prepared = prepare(ask, model.card, instances, job_id, traceparent, render=render)
        return Job(job_id, model, prepared)

    def check_settings(self, settings: Ask) -> None:
        """Raises UnsupportedField for a setting that no instance of the model can honour. Checks
        nothing while the model takes no requests."""
        if self._models:
            model = self._find(settings.model, None)
            if instances := model.backend.instance_classes:
                capable_instances(needs_of_ask(settings), instances, model.name)

    def _find_ready(
        self, name: str | None, allowed: frozenset[str] | None
    ) -> tuple[ServedModel, Sequence[Instance]]:
        model = self._find(name, allowed)
        instances = model.backend.instance_classes
        if not instances:
            statement = f"The model {quoted(model.name)} takes no requests now"
            raise Unavailable(with_reason(statement, model.backend.trouble))
        return model, instances

    def _find(self, name: str | None, allowed: frozenset[str] | None) -> ServedModel:
        if not self._models:
            raise Unavailable("No worker has registered yet.")
        known = [each for each in self._models if allowed is None or each in allowed]
        if name is None:
            name = next(iter(known), "")
        if name not in known:
            raise unknown_model(name)
        return self._models[name]

    def run(
        self, job: Job, cancel_reader: CancelReader | None = None, place: Place | None = None
    ) -> AsyncGenerator[Sequence[Piece], None]:
        """The answer's pieces in batches, choices interleaved; a `FinishPiece` ends each choice.

        A batch holds everything that arrived since the last one was taken: it may stand for many
        tokens. Closing it (`aclosing`) cancels every choice inside the engine. Raises Unavailable
        before the first batch; EngineLost, EngineError or SlowReader at any time.

        `cancel_reader` is called if the reader falls behind its bound. The reader may be waiting
        for a client that does not read, and would not notice an error here for a long time. The
        deadline of `place` bounds the waits for an instance; the caller ends the answer at it.
        """
        deadline = None if place is None else place.deadline
        stops = StopAutomaton(job.prepared.stops) if job.prepared.stops else None
        choices = [
            _choice(job, index, stops, cancel_reader, deadline) for index in range(job.choices)
        ]
        if len(choices) == 1:
            return choices[0]
        return _interleaved(choices, job.prepared.at_once or len(choices))


def unknown_model(name: str) -> UnknownModel:
    return UnknownModel(
        f"The model `{name[:200]}` does not exist or you do not have access to it.", param="model"
    )


async def _choice(
    job: Job,
    index: int,
    stops: StopAutomaton | None,
    cancel_reader: CancelReader | None,
    deadline: float | None,
) -> AsyncGenerator[Sequence[Piece], None]:
    request = job.prepared.requests[index]
    detokenizer = job.model.card.tokenizer.detokenizer()
    output = OutputProcessor(index, request, detokenizer, stops)
    async with aclosing(job.model.backend.generate(request, cancel_reader, deadline)) as deltas:
        async for delta in deltas:
            pieces = output.feed(delta)
            if pieces:
                yield pieces
                if isinstance(pieces[-1], FinishPiece):
                    return


async def _interleaved(
    choices: list[AsyncGenerator[Sequence[Piece], None]], at_once: int
) -> AsyncGenerator[Sequence[Piece], None]:
    """The pieces of all choices, as they arrive. The first error ends all of them."""
    ready: asyncio.Queue[Sequence[Piece] | BaseException | None] = asyncio.Queue(maxsize=at_once)
    free = asyncio.Semaphore(at_once)

    async def forward(batches: AsyncGenerator[Sequence[Piece], None]) -> None:
        try:
            async with free, aclosing(batches):
                async for pieces in batches:
                    await ready.put(pieces)
            await ready.put(None)
        except Exception as error:
            await ready.put(error)

    tasks = [asyncio.create_task(forward(batches)) for batches in choices]
    try:
        left = len(tasks)
        while left:
            item = await ready.get()
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
