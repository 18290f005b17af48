"""What was said in a chat, and which part of it still fits the model's context."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dynemo.errors import ContextLengthExceeded, UsageError
from dynemo.messages.ask import Turn, text_turn
from dynemo.prompt.normalise import plain_messages
from dynemo.serving.pipeline import Job

#: Room for an answer, in tokens, below which old turns are dropped: this, or an eighth of the
#: context where that is less.
ROOM = 256


@dataclass(frozen=True)
class ChatRound:
    question: str
    answer: str
    is_stopped: bool = False  #: the answer was broken off, by Ctrl-C or by an error


@dataclass
class Conversation:
    """All turns are kept, for `/save`; the first `dropped` of them are no longer sent."""

    system: str | None = None
    turns: list[ChatRound] = field(default_factory=list)
    dropped: int = 0
    unanswered: str | None = None  #: the last question, where it got no answer at all
    saved: set[Path] = field(default_factory=set)  #: files that this chat made

    def asked(self, first: int, question: str | None = None) -> list[Turn]:
        """The system message, the rounds from `first` on, and `question`."""
        turns = [text_turn("system", self.system)] if self.system else []
        for each in self.turns[first:]:
            turns += [text_turn("user", each.question), text_turn("assistant", each.answer)]
        if question is not None:
            turns.append(text_turn("user", question))
        return turns

    def clear(self) -> None:
        """Forget every turn; the system message stays."""
        self.turns.clear()
        self.dropped = 0
        self.unanswered = None

    def take_back(self) -> tuple[str, ChatRound | None] | None:
        """The last question and the turn that it leaves, for another try; None if there is none."""
        if self.unanswered is not None:
            return self.unanswered, None
        if not self.turns:
            return None
        turn = self.turns.pop()
        self.dropped = min(self.dropped, len(self.turns))
        return turn.question, turn


def fit(
    talk: Conversation,
    question: str,
    prepare: Callable[[list[Turn]], Job],
) -> tuple[Job, int]:
    """The job of asking `question` after as many turns as fit, and how many turns it dropped.

    The system message is never dropped. Raises what `prepare` raises, ContextLengthExceeded when
    `question` alone does not fit; then nothing is dropped.
    """

    def attempt(first: int) -> Job | None:
        try:
            job = prepare(talk.asked(first, question))
        except ContextLengthExceeded:
            if first == len(talk.turns):
                raise
            return None
        context = job.model.context_length
        has_room = context - job.prompt_tokens >= min(ROOM, context // 8)
        # With nothing left to drop, a short answer is better than none.
        return job if has_room or first == len(talk.turns) else None

    before = low = talk.dropped
    job = attempt(low)
    if job is None:
        # Fewer turns never make a longer prompt: halve instead of rendering once for each turn.
        high = len(talk.turns)
        job = attempt(high)
        while high - low > 1:
            middle = (low + high) // 2
            if (candidate := attempt(middle)) is None:
                low = middle
            else:
                job, high = candidate, middle
        talk.dropped = high
    assert job is not None
    return job, talk.dropped - before


def save(talk: Conversation, name: str) -> Path:
    """Write all messages to the file `name` as a JSON list and return its path.

    A file that this chat wrote before is replaced, any other is not. Raises UsageError.
    """
    path = Path(name).expanduser().absolute()
    data = (
        json.dumps(plain_messages(talk.asked(0, talk.unanswered)), ensure_ascii=False, indent=2)
        + "\n"
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path in talk.saved:
            partial.write_text(data, encoding="utf-8")
            partial.replace(path)
        else:
            with path.open("x", encoding="utf-8") as file:
                file.write(data)
    except FileExistsError:
        raise UsageError(f"{name} exists already: choose another name.") from None
    except OSError as error:
        raise UsageError(f"{name} cannot be written: {error.strerror}.") from None
    talk.saved.add(path)
    return path
