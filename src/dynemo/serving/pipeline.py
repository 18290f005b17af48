"""The one path: preprocess -> route -> instance -> postprocess."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from uuid import uuid4

from dynemo.answer.output import OutputProcessor
from dynemo.errors import EngineError, Unavailable, UnknownModel
from dynemo.messages import Ask, Instance, Piece, Request
from dynemo.prompt.card.card import Card
from dynemo.prompt.prepare import Prepared, merged, prepare, prepare_embeddings
from dynemo.serving.instance import Backend


@dataclass(frozen=True)
class ServedModel:
    name: str
    created: int  #: unix seconds
    card: Card
    answerer: Backend

    @property
    def context_length(self) -> int:
        """Tokens that one sequence may hold; the model's own limit until the engine has said."""
        instance = self.answerer.instance
        return instance.context_length if instance is not None else self.card.context_length


@dataclass(frozen=True)
class Job:
    """An accepted ask: rendered, tokenized, within limits. Nothing runs yet."""

    id: str  #: hex, unique; HTTP answers with `chatcmpl-{id}`
    model: ServedModel
    prepared: Prepared

    @property
    def prompt(self) -> str:
        return self.prepared.requests[0].prompt

    @property
    def prompt_tokens(self) -> int:
        return len(self.prepared.requests[0].token_ids)

    @property
    def n(self) -> int:
        return len(self.prepared.requests)


@dataclass(frozen=True)
class EmbeddingJob:
    """Accepted texts to embed. Nothing runs yet."""

    model: ServedModel
    requests: list[Request]
    at_once: int  #: as many as the model's instances compute

    @property
    def prompt_tokens(self) -> int:
        return sum(len(request.token_ids) for request in self.requests)


class Pipeline:
    """All models that this process serves."""

    def __init__(self, models: Mapping[str, ServedModel], *, defaults: Ask) -> None:
        self._models = models
        self._defaults = defaults

    @property
    def models(self) -> Mapping[str, ServedModel]:
        return self._models

    @property
    def trouble(self) -> str:
        """Why a request could not be served now (`loading`, ...), else empty."""
        troubles = [model.answerer.trouble for model in self._models.values()]
        return "" if not all(troubles) else next(iter(troubles), "no instances")

    def prepare(self, ask: Ask, traceparent: str = "") -> Job:
        """Raises RequestError (UnknownModel, ContextLengthExceeded, UnsupportedField, ...), and
        Unavailable while no instance could answer.

        `ask.model` None means the only model, or the first. `traceparent` goes to the engine.
        """
        ask = merged(ask, self._defaults)
        model, kinds = self._find_ready(ask.model)
        job_id = uuid4().hex
        return Job(job_id, model, prepare(ask, model.card, kinds, job_id, traceparent))

    def prepare_embeddings(
        self, name: str | None, inputs: Sequence[str | list[int]], traceparent: str = ""
    ) -> EmbeddingJob:
        """Raises as `prepare` does."""
        model, kinds = self._find_ready(name)
        made = prepare_embeddings(inputs, model.card, kinds, uuid4().hex, traceparent)
        requests, at_once = made
        return EmbeddingJob(model, requests, max(at_once, 1))

    async def embed(self, job: EmbeddingJob) -> list[bytes]:
        """A vector for each of the job's requests, as 32-bit floats, little-endian. Raises as `run`
        does; the first error ends all of it."""
        free = asyncio.Semaphore(job.at_once)

        async def one(request: Request) -> bytes:
            async with free, aclosing(job.model.answerer.generate(request)) as deltas:
                async for delta in deltas:
                    if delta.finish is not None:
                        return delta.embedding
            raise EngineError("The engine gave no embedding.")

        tasks = [asyncio.create_task(one(request)) for request in job.requests]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _find_ready(self, name: str | None) -> tuple[ServedModel, Sequence[Instance]]:
        model = self._find(name)
        kinds = model.answerer.kinds
        if not kinds:
            reason = model.answerer.trouble
            raise Unavailable(f"{model.name} takes no requests now: {reason}.")
        return model, kinds

    def _find(self, name: str | None) -> ServedModel:
        if not self._models:
            raise Unavailable("No worker has come yet.")
        if name is None:
            return next(iter(self._models.values()))
        try:
            return self._models[name]
        except KeyError:
            raise UnknownModel(
                f"The model `{name[:200]}` does not exist or you do not have access to it.",
                param="model",
            ) from None

    def run(self, job: Job) -> AsyncGenerator[Piece, None]:
        """The answer's pieces, choices interleaved; each choice's last piece has `finish`.

        One piece covers whatever came since the last one was taken: it may stand for many tokens.
        Closing it (`aclosing`) cancels every choice inside the engine. Raises Unavailable before
        the first piece; EngineLost, EngineError or SlowReader at any time.
        """
        choices = [_choice(job, index) for index in range(job.n)]
        return choices[0] if job.n == 1 else _interleaved(choices)


async def _choice(job: Job, index: int) -> AsyncGenerator[Piece, None]:
    request: Request = job.prepared.requests[index]
    detokenizer = job.model.card.tokenizer.detokenizer()
    answer = OutputProcessor(index, request, detokenizer, job.prepared.stops)
    async with aclosing(job.model.answerer.generate(request)) as deltas:
        async for delta in deltas:
            piece = answer.feed(delta)
            yield piece
            if piece.finish is not None:
                return


async def _interleaved(choices: list[AsyncGenerator[Piece, None]]) -> AsyncGenerator[Piece, None]:
    """The pieces of all, as they come. The first error ends all of them."""
    ready: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue(maxsize=len(choices))

    async def forward(pieces: AsyncGenerator[Piece, None]) -> None:
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    await ready.put(piece)
            await ready.put(None)
        except Exception as error:
            await ready.put(error)

    tasks = [asyncio.create_task(forward(pieces)) for pieces in choices]
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
