"""A pipeline that answers with words from a script."""

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from dynemo.answer.formats.format import Format
from dynemo.errors import ContextLengthExceeded, DynemoError
from dynemo.messages.answer import Finish, FinishReason, Piece, TextPiece, ToolCallPiece
from dynemo.messages.ask import Ask, ToolResultPart, Turn
from dynemo.messages.records import Capabilities
from dynemo.messages.request import Request, Sampling
from dynemo.prompt.prepare import Prepared
from dynemo.prompt.render import Render, render_prompt
from dynemo.serving.pipeline import Job
from dynemo.serving.served import ServedModel
from support.fake_backend import FakeBackend
from support.fake_pipeline import FakePipeline, Step
from support.pieces import ended
from support.records import make_instance

#: The elements of an answer: text, a piece, a pause in seconds, or an error.
Script = Sequence[str | Piece | float | DynemoError]


def words(ask: Ask) -> Script:
    """The default script: repeats the last message, one word per piece."""
    return [f"{word} " for word in said(ask.turns[-1]).split()]


def said(turn: Turn) -> str:
    """Returns the text of a turn."""
    return "".join(turn.texts)


def _words(turn: Turn) -> int:
    """Returns the number of words of a turn, in its text and in the results of tools."""
    results = [part.text for part in turn.parts if isinstance(part, ToolResultPart)]
    return sum(len(text.split()) for text in [said(turn), *results])


class ScriptedPipeline(FakePipeline):
    """A pipeline in which a word is a token. `answer` returns the script of each ask."""

    def __init__(
        self,
        answer: Callable[[Ask], Script] = words,
        context_length: int = 4096,
        slots: int = 4,
        reason: FinishReason = "stop",
        troubles: Sequence[str] = (),
        format: Format | None = None,
    ) -> None:
        self.context_length, self.slots = context_length, slots
        self.troubles = list(troubles)  #: one for each check, then none
        self._answer, self._reason = answer, reason
        instance = make_instance(
            engine="stub",
            version="1.0",
            device="cpu",
            context_length=context_length,
            slots=slots,
            capabilities=Capabilities(sampling=list(Ask.__struct_fields__)),
        )
        card: Any = SimpleNamespace(name="stub", format=format or Format())
        served = ServedModel("stub", 0, card, FakeBackend(instance))
        super().__init__(self._steps, {"stub": served})

    @property
    def trouble(self) -> str:
        return self.troubles.pop(0) if self.troubles else ""

    @property
    def closed_early(self) -> int:
        return self.closed.count("cancelled")

    def prepare(
        self,
        ask: Ask,
        traceparent: str = "",
        *,
        allowed: frozenset[str] | None = None,
        render: Render = render_prompt,
    ) -> Job:
        tokens = sum(_words(turn) for turn in ask.turns)
        if tokens >= self.context_length:
            raise ContextLengthExceeded(
                f"The prompt has {tokens} tokens, the context {self.context_length}."
            )
        self.asks.append(ask)
        request = Request(
            id="r", token_ids=[0] * tokens, prompt="", max_tokens=1, sampling=Sampling()
        )
        prepared = Prepared("chat", [request], tokens)
        return Job(f"{len(self.asks) - 1}", self.served["stub"], prepared)

    def ask_of(self, job: Job) -> Ask:
        return self.asks[int(job.id)]

    def _steps(self, job: Job) -> Iterator[Step]:
        tokens, reason = 0, self._reason
        for step in self._answer(self.ask_of(job)):
            if isinstance(step, str):
                # Yields to the event loop, as real I/O between engine and reader would.
                yield 0
                tokens += 1
                yield TextPiece(0, step, 1)
            else:
                if isinstance(step, ToolCallPiece):
                    reason = "tool_calls"
                yield step
        yield ended(0, "", 1, Finish(reason, job.prompt_tokens, tokens + 1))


def after(*errors: DynemoError) -> Callable[[Ask], Script]:
    """Returns a script that fails once with each of `errors`, and then answers."""
    left: Iterator[DynemoError] = iter(errors)

    def answer(ask: Ask) -> Script:
        error = next(left, None)
        return words(ask) if error is None else [error]

    return answer
