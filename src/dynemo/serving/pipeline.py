"""The one path: preprocess -> route -> instance -> postprocess."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import partial
from uuid import uuid4

from msgspec import structs

from dynemo.answer.output import OutputProcessor
from dynemo.answer.reader import AnswerReader, in_parts
from dynemo.answer.stops import StopAutomaton
from dynemo.connection.buffer import CancelReader
from dynemo.errors import Overloaded, Unavailable, UnknownModel
from dynemo.limits import QUEUE_SECONDS, RENDER_PROCESSES
from dynemo.messages.answer import Delta, FinishPiece, Piece
from dynemo.messages.ask import Ask, merged
from dynemo.messages.records import Instance
from dynemo.messages.request import Request
from dynemo.prompt.errors import RenderTooLong
from dynemo.prompt.needs import capable_instances, needs_of_ask
from dynemo.prompt.plan import check_plan
from dynemo.prompt.prepare import Prepared, prepare
from dynemo.prompt.render import Render, render_prompt
from dynemo.serving.held_calls import hold_calls
from dynemo.serving.rendering import render_apart
from dynemo.serving.room import Place
from dynemo.serving.served import ServedModel
from dynemo.serving.source import Complete, ModelSource
from dynemo.serving.thinking import Generate, think_first
from dynemo.serving.turns import Turns
from dynemo.spelling import quoted, with_reason

#: Seconds before busy instances are asked again, and the longest such pause.
_FIRST_PAUSE = 0.1
_LAST_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """An accepted ask: rendered, tokenized, and within limits. Nothing runs yet."""

    id: str  #: hex, unique
    model: ServedModel
    prepared: Prepared
    priority: int = 0  #: lower is earlier, among the requests of one client

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


def salted(job: Job, salt: str) -> Job:
    """A job that shares a prefix cache only with jobs of the same salt."""
    prepared = job.prepared
    if not salt or prepared.task != "chat":
        return job
    requests = [structs.replace(request, cache_salt=salt) for request in prepared.requests]
    return replace(job, prepared=replace(prepared, requests=requests))


class Pipeline:
    """All models that this process serves."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        *,
        defaults: Ask,
        source: ModelSource | None = None,
        max_queue: float | None = math.inf,
        parses_content: bool = False,
    ) -> None:
        """At most `max_queue` requests wait for each model; None derives it from the slots.

        `parses_content`: a client's text that spells a control token becomes that token.
        """
        self._models = models
        self._defaults = defaults
        self.source: ModelSource = source or Complete()
        self._max_queue = max_queue
        self._parses_content = parses_content
        self.rendering = Turns(RENDER_PROCESSES)  #: in processes of their own

    @property
    def models(self) -> Mapping[str, ServedModel]:
        return self._models

    def sums(self, count: Callable[[ServedModel], int]) -> list[tuple[str, int]]:
        """A count of each model, over all its generations."""
        return [
            (name, sum(count(each) for each in self.source.generations(model)))
            for name, model in self._models.items()
        ]

    @property
    def trouble(self) -> str:
        """Why no request can be served now (`loading`, ...); else empty."""
        if why := self.source.connections.get("requests"):
            return why
        models = list(self._models.values())
        troubles = [self.source.choose(model).backend.trouble for model in models]
        if not troubles:
            return self.source.absence(None) or "no instances"
        return troubles[0] if all(troubles) else ""

    async def accept(self, ask: Ask) -> Job:
        """Prepares an ask without holding up the event loop for long. Raises what `prepare` raises.

        A rendering that needs many steps gets a process of its own.
        """
        with suppress(RenderTooLong):
            return self.prepare(ask)
        return await self.rendering.in_thread("", partial(self.prepare, ask, render=render_apart))

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
        prepared = prepare(
            ask,
            model.card,
            instances,
            job_id,
            traceparent,
            render=render,
            parses_content=self._parses_content,
        )
        return Job(job_id, model, prepared, ask.priority or 0)

    def check_settings(self, settings: Ask) -> None:
        """Raises UnsupportedField for a setting that no instance of the model can honour, or that
        its chat template does not know. Checks nothing of instances while there are none."""
        if self._models:
            model = self._find(settings.model, None)
            check_plan(settings, model.card)
            if instances := model.backend.instance_classes:
                capable_instances(needs_of_ask(settings), instances, model.name)

    def _find_ready(
        self, name: str | None, allowed: frozenset[str] | None
    ) -> tuple[ServedModel, Sequence[Instance]]:
        model = self.source.choose(self._find(name, allowed))
        instances = model.backend.instance_classes
        if not instances:
            statement = f"The model {quoted(model.name)} takes no requests now"
            raise Unavailable(with_reason(statement, model.backend.trouble))
        return model, instances

    def _find(self, name: str | None, allowed: frozenset[str] | None) -> ServedModel:
        known = [each for each in self._models if allowed is None or each in allowed]
        if name is None:
            name = next(iter(known), None)
        if name is not None and name in known:
            return self._models[name]
        if why := self.source.absence(name):
            raise Unavailable(why)
        if not self._models:
            raise Unavailable("No worker has registered yet.")
        # Without a name, the client may use only models that are not served.
        raise unknown_model(name or ", ".join(sorted(allowed or ())))

    def check_room(
        self, place: Place, name: str | None = None, *, allowed: frozenset[str] | None = None
    ) -> None:
        """Raises Overloaded if the request would be refused now. It costs no time, so it comes
        before all work. Without a name it checks only if there is one model."""
        if name is None and len(self._models) == 1:
            name = next(iter(self._models))
        model = self._models.get(name) if name is not None else None
        if model is not None and (allowed is None or name in allowed):
            place.model = model.name
            self.source.choose(model).room.check(place.client, self._max_queue)

    def run(
        self, job: Job, cancel_reader: CancelReader | None = None, place: Place | None = None
    ) -> AsyncGenerator[Sequence[Piece], None]:
        """The answer's pieces in batches, choices interleaved; a `FinishPiece` ends each choice.

        A batch holds everything that arrived since the last one was taken: it may stand for many
        tokens. Closing it (`aclosing`) cancels every choice inside the engine. Raises Unavailable
        before the first batch, Overloaded if the queue is full; EngineLost, EngineError or
        SlowReader at any time.

        `cancel_reader` is called if the reader falls behind its bound. The reader may be waiting
        for a client that does not read, and would not notice an error here for a long time. The
        deadline of `place` bounds the waits for an instance; the caller ends the answer at it.
        """
        place = place or Place()
        place.priority = job.priority
        stops = StopAutomaton(job.prepared.stops) if job.prepared.stops else None
        run = _Run(job, stops, cancel_reader, place, self._max_queue)
        return _choice(run, 0) if job.choices == 1 else _interleaved(run)


@dataclass(frozen=True, slots=True)
class _Run:
    job: Job
    stops: StopAutomaton | None
    cancel_reader: CancelReader | None
    place: Place
    max_queue: float | None


def unknown_model(name: str) -> UnknownModel:
    return UnknownModel(
        f"The model `{name[:200]}` does not exist or you do not have access to it.", param="model"
    )


async def _choice(
    run: _Run, index: int, on_start: Callable[[], None] | None = None
) -> AsyncGenerator[Sequence[Piece], None]:
    """One choice. It waits for its turn first, and calls `on_start` when it has come."""
    job, place, room = run.job, run.place, run.job.model.room
    request = job.prepared.requests[index]
    generate = _generating(run)
    has_begun = False
    pauses: Iterator[float] | None = None
    started = await room.enter(place, run.max_queue)
    try:
        if on_start is not None:
            on_start()
        output = OutputProcessor(index, request, job.model.card.tokenizer, run.stops)
        plan = job.prepared.plan
        reader = None if plan is None else AnswerReader(index, plan, request.id, job.prompt_tokens)
        while True:
            try:
                async with aclosing(generate(request)) as deltas:
                    async for delta in deltas:
                        has_begun = True
                        pieces = output.feed(delta)
                        for part in (pieces,) if reader is None else in_parts(pieces):
                            if part is not pieces:  # other answers continue during a long text
                                await asyncio.sleep(0)
                            said = part if reader is None else reader.read(part)
                            if said:
                                yield said
                                if isinstance(said[-1], FinishPiece):
                                    return
                return
            except Overloaded:
                # Other ingresses fill the instances. It keeps its place here, and asks again.
                pauses = pauses or _busy_pauses()
                pause = None if has_begun else next(pauses, None)
                if pause is None:
                    raise
            await asyncio.sleep(pause)
    finally:
        room.leave(place, started)


def _generating(run: _Run) -> Generate:
    """Returns a function that answers one request: the backend, or the backend in two steps."""
    prepared, model = run.job.prepared, run.job.model
    reader, deadline = run.cancel_reader, run.place.deadline

    def generate(request: Request) -> AsyncGenerator[Delta, None]:
        return model.backend.generate(request, reader, deadline)

    wanted: Generate = generate
    tokenizer, steps = model.card.tokenizer, prepared.steps
    held, thinking = steps.held, steps.thinking
    if held is not None:
        wanted = partial(hold_calls, generate=wanted, held=held, tokenizer=tokenizer)
    if thinking is not None:
        wanted = partial(think_first, generate=wanted, thinking=thinking, tokenizer=tokenizer)
    return wanted


def _busy_pauses() -> Iterator[float]:
    """Yields the pauses before busy instances are asked again, QUEUE_SECONDS in all."""
    pause, left = _FIRST_PAUSE, QUEUE_SECONDS
    while left > 0:
        yield pause
        left -= pause
        pause = min(2 * pause, _LAST_PAUSE)


async def _interleaved(run: _Run) -> AsyncGenerator[Sequence[Piece], None]:
    """The pieces of all choices, as they arrive. The first error ends all of them.

    Only one choice waits at a time, so that a request costs the queue one entry.
    """
    choices = run.job.choices
    at_once = min(run.job.prepared.at_once or choices, choices)
    ready: asyncio.Queue[Sequence[Piece] | BaseException | None] = asyncio.Queue(maxsize=at_once)
    free = asyncio.Semaphore(at_once)
    tasks: list[asyncio.Task[None]] = []

    async def forward(index: int, on_start: Callable[[], None]) -> None:
        try:
            async with aclosing(_choice(run, index, on_start)) as batches:
                async for pieces in batches:
                    await ready.put(pieces)
            await ready.put(None)
        except Exception as error:
            await ready.put(error)
        finally:
            free.release()

    async def start() -> None:
        for index in range(choices):
            await free.acquire()
            has_started = asyncio.Event()
            tasks.append(asyncio.create_task(forward(index, has_started.set)))
            await has_started.wait()

    tasks.append(asyncio.create_task(start()))
    try:
        left = choices
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
