"""The conversation of a chat, and the part of it that fits the model's context."""

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dynemo.errors import ContextLengthExceeded, UsageError
from dynemo.messages.ask import Turn, text_turn
from dynemo.prompt.normalise import plain_messages
from dynemo.serving.pipeline import Job

#: Room for an answer in tokens. With less room, old rounds are dropped. For small contexts the
#: limit is an eighth of the context.
ROOM = 256


@dataclass(frozen=True)
class ChatRound:
    """A question and its answer, with the calls of tools and their results in between."""

    turns: tuple[Turn, ...]
    is_stopped: bool = False  #: the answer was interrupted by Ctrl-C or an error


@dataclass
class Conversation:
    """All rounds of a chat. `/save` writes them all, but the first `dropped` are no longer sent."""

    system: str | None = None
    rounds: list[ChatRound] = field(default_factory=list)
    dropped: int = 0
    #: The last question, if it got no answer at all. Calls and their results may follow it.
    unanswered: tuple[Turn, ...] = ()
    saved: set[Path] = field(default_factory=set)  #: files that this chat has created

    def turns_from(self, first: int, asked: Sequence[Turn] = ()) -> list[Turn]:
        """Returns the system message, the rounds from `first` on, and `asked`."""
        turns = [text_turn("system", self.system)] if self.system else []
        for each in self.rounds[first:]:
            turns += each.turns
        return [*turns, *asked]

    def clear(self) -> None:
        """Forgets every round, but keeps the system message."""
        self.rounds.clear()
        self.dropped = 0
        self.unanswered = ()

    def take_back(self) -> tuple[tuple[Turn, ...], ChatRound | None] | None:
        """Removes the last round for another try. Returns its turns without the answer, and the
        round. Returns None if there is nothing to answer."""
        if self.unanswered:
            return self.unanswered, None
        if not self.rounds:
            return None
        last = self.rounds.pop()
        self.dropped = min(self.dropped, len(self.rounds))
        return last.turns[:-1], last


def before_calls(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Returns the turns before the last calls and their results; none if there are no calls."""
    calls = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
    return turns[: calls[-1]] if calls else ()


def fit(
    conversation: Conversation,
    asked: Sequence[Turn],
    prepare: Callable[[list[Turn]], Job],
) -> tuple[Job, int]:
    """Returns the job of answering `asked`, and how many rounds it dropped to fit the context.

    The system message is never dropped. Raises the errors of `prepare`. If `asked` alone does
    not fit, that is ContextLengthExceeded, and nothing is dropped.
    """

    def attempt(first: int) -> Job | None:
        try:
            job = prepare(conversation.turns_from(first, asked))
        except ContextLengthExceeded:
            if first == len(conversation.rounds):
                raise
            return None
        context = job.model.context_length
        has_room = context - job.prompt_tokens >= min(ROOM, context // 8)
        # If no round is left to drop, a short answer is better than none.
        return job if has_room or first == len(conversation.rounds) else None

    before = low = conversation.dropped
    job = attempt(low)
    if job is None:
        # Dropping rounds never makes a prompt longer, so a binary search saves renderings.
        high = len(conversation.rounds)
        job = attempt(high)
        while high - low > 1:
            middle = (low + high) // 2
            if (candidate := attempt(middle)) is None:
                low = middle
            else:
                job, high = candidate, middle
        conversation.dropped = high
    assert job is not None
    return job, conversation.dropped - before


def save(conversation: Conversation, name: str) -> Path:
    """Writes all messages to the file `name` as a JSON list, and returns its path.

    It replaces only files that this chat has written before. Raises UsageError.
    """
    path = Path(name).expanduser().absolute()
    data = (
        json.dumps(
            plain_messages(conversation.turns_from(0, conversation.unanswered)),
            ensure_ascii=False,
            indent=2,
        )
        + "\n"
    )
    try:
        if path in conversation.saved:
            _replace(path, data)
        else:
            _create(path, data)
    except FileExistsError:
        raise UsageError(f'"{name}" already exists. Choose another name.') from None
    except OSError as error:
        raise UsageError(f'"{name}" cannot be written: {error.strerror}.') from None
    conversation.saved.add(path)
    return path


def _replace(path: Path, data: str) -> None:
    partial = path.with_name(f".{secrets.token_hex(8)}")
    _create(partial, data)
    partial.replace(path)


def _create(path: Path, data: str) -> None:
    """Writes a new file. It follows no link, and leaves no half of a file on a full disk."""
    with path.open("x", encoding="utf-8") as file:
        try:
            file.write(data)
            file.flush()
        except OSError:
            path.unlink(missing_ok=True)
            raise
