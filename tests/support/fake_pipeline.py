"""A pipeline that answers from a script, and records how each answer ended."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import cast

from dynemo.answer.formats.format import Format
from dynemo.connection.buffer import CancelReader
from dynemo.errors import DynemoError, UnknownModel
from dynemo.messages.answer import Finish, FinishReason, Piece, TextPiece
from dynemo.messages.ask import Ask
from dynemo.messages.records import Load
from dynemo.messages.request import Request, Sampling
from dynemo.prompt.card.card import Card
from dynemo.prompt.prepare import Prepared
from dynemo.prompt.render import Render, render_prompt
from dynemo.serving.pipeline import Job, Pipeline
from dynemo.serving.room import Place
from dynemo.serving.served import ServedModel
from support.fake_backend import FakeBackend
from support.pieces import ended
from support.records import make_instance

#: One piece, several pieces at once, a pause in seconds, or an error that ends the script.
Step = Piece | list[Piece] | float | DynemoError
Script = Iterable[Step]

PROMPT_TOKENS = 7


def say(*texts: str, index: int = 0, reason: FinishReason = "stop", cached: int = 0) -> list[Step]:
    """Returns a script: each text is one token; then the finish, with EOS as one more token."""
    finish = Finish(reason, PROMPT_TOKENS, len(texts) + 1, cached)
    return [*(TextPiece(index, text, 1) for text in texts), ended(index, "", 1, finish)]


class FakePipeline(Pipeline):
    """A pipeline with a script for each job. If `refusal` is set, `prepare` raises it."""

    def __init__(
        self,
        script: Callable[[Job], Script] | Script | None = None,
        served: dict[str, ServedModel] | None = None,
    ) -> None:
        self._script = say("Pre", "toria") if script is None else script
        instance = make_instance("i1", version="1.2", device="cpu", context_length=4096, slots=4)
        self.backend = FakeBackend(instance, Load(running=1, waiting=2, kv_use=0.5))
        card = cast(Card, SimpleNamespace(context_length=4096, name="demo", format=Format()))
        self.served = served or {
            name: ServedModel(name, 1_700_000_000, card, self.backend)
            for name in ("demo", "org/other")
        }
        super().__init__(self.served, defaults=Ask())
        self.asks: list[Ask] = []
        self.refusal: Exception | None = None
        self.now: str = ""
        self.running = self.most_running = 0
        self.closed: list[str] = []  #: `finished`, `cancelled` or `broken` for each answer

    @property
    def trouble(self) -> str:
        return self.now

    def prepare(
        self,
        ask: Ask,
        traceparent: str = "",
        *,
        allowed: frozenset[str] | None = None,
        render: Render = render_prompt,
    ) -> Job:
        if self.refusal is not None:
            raise self.refusal
        self.asks.append(ask)
        name = ask.model or "demo"
        model = self.served.get(name)
        if model is None or (allowed is not None and name not in allowed):
            raise UnknownModel(
                f"The model `{ask.model}` does not exist or you do not have access to it.",
                param="model",
            )
        request = Request(
            id="r",
            token_ids=[1] * PROMPT_TOKENS,
            prompt="",
            max_tokens=ask.max_tokens or 16,
            sampling=Sampling(),
            traceparent=traceparent,
        )
        return Job(
            f"{len(self.asks):032x}",
            model,
            Prepared("chat", [request] * (ask.n or 1), PROMPT_TOKENS),
        )

    async def run(
        self, job: Job, cancel_reader: CancelReader | None = None, place: Place | None = None
    ) -> AsyncGenerator[Sequence[Piece], None]:
        script = self._script(job) if callable(self._script) else self._script
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        end = "finished"
        try:
            for step in script:
                if isinstance(step, DynemoError):
                    raise step
                if isinstance(step, float | int):
                    await asyncio.sleep(step)
                else:
                    yield step if isinstance(step, list) else [step]
        except DynemoError:
            end = "broken"
            raise
        except (GeneratorExit, asyncio.CancelledError):
            end = "cancelled"
            # A real pipeline tells the engine and waits for it.
            await asyncio.sleep(0)
            raise
        finally:
            self.running -= 1
            self.closed.append(end)
