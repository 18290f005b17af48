import json
from pathlib import Path
from typing import Any

import pytest

from dynemo.errors import ContextLengthExceeded, UsageError
from dynemo.messages.ask import Ask, Turn, text_turn
from dynemo.serving.pipeline import Job
from dynemo.terminal.chat.conversation import ChatRound, Conversation, fit, save
from support.scripted_pipeline import ScriptedPipeline


def asked(question: str) -> tuple[Turn, ...]:
    return (text_turn("user", question),)


def round_of(question: str, answer: str) -> ChatRound:
    return ChatRound((*asked(question), text_turn("assistant", answer)))


def talk(turns: int) -> Conversation:
    """Returns a conversation whose turns have 10 tokens each. The system message has 2."""
    return Conversation("Be brief.", [round_of("q " * 5, f"a{i} " * 5) for i in range(turns)])


def preparing(context_length: int) -> tuple[Any, list[int]]:
    pipeline = ScriptedPipeline(context_length=context_length)
    lengths: list[int] = []

    def prepare(turns: list[Turn]) -> Job:
        lengths.append(len(turns))
        return pipeline.prepare(Ask(turns=turns))

    return prepare, lengths


def test_all_is_sent_while_it_fits() -> None:
    prepare, lengths = preparing(1000)
    state = talk(3)
    job, dropped = fit(state, asked("hi"), prepare)
    assert (dropped, state.dropped, job.prompt_tokens) == (0, 0, 33)
    assert lengths == [8]


@pytest.mark.parametrize("context_length", [40, 80, 104, 200, 400, 800])
def test_as_many_of_the_newest_turns_stay_as_leave_room(context_length: int) -> None:
    prepare, lengths = preparing(context_length)
    state = talk(100)
    job, dropped = fit(state, asked("hi"), prepare)
    room = context_length // 8
    assert context_length - job.prompt_tokens >= room
    assert context_length - (job.prompt_tokens + 10) < room
    assert dropped == state.dropped == 100 - (job.prompt_tokens - 3) // 10
    assert len(lengths) <= 10
    assert state.turns_from(state.dropped)[0] == text_turn("system", "Be brief.")


def test_the_next_message_drops_as_few_turns_as_possible() -> None:
    prepare, _ = preparing(100)
    state = talk(20)
    fit(state, asked("hi"), prepare)
    state.rounds.append(round_of("q " * 5, "a " * 5))
    assert fit(state, asked("hi"), prepare)[1] == 1


def test_a_message_that_alone_does_not_fit_drops_nothing() -> None:
    prepare, _ = preparing(50)
    state = talk(3)
    with pytest.raises(ContextLengthExceeded):
        fit(state, asked("w " * 60), prepare)
    assert state.dropped == 0


def test_a_message_that_leaves_little_room_is_still_asked() -> None:
    prepare, _ = preparing(50)
    job, dropped = fit(talk(3), asked("w " * 45), prepare)
    assert (job.prompt_tokens, dropped) == (47, 3)


def test_taking_back() -> None:
    state = talk(2)
    assert state.take_back() == (asked("q " * 5), round_of("q " * 5, "a1 " * 5))
    state.unanswered = asked("and?")
    assert state.take_back() == (asked("and?"), None)
    assert Conversation().take_back() is None


def test_saving_keeps_dropped_turns_too(tmp_path: Path) -> None:
    state = talk(2)
    state.dropped = 1
    path = save(state, str(tmp_path / "talk.json"))
    messages = json.loads(path.read_text())
    assert [each["role"] for each in messages] == ["system", *["user", "assistant"] * 2]
    state.rounds.append(round_of("größer", "…"))
    save(state, str(tmp_path / "talk.json"))
    assert json.loads(path.read_text())[-2] == {"role": "user", "content": "größer"}
    assert list(tmp_path.iterdir()) == [path]


def test_saving_replaces_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UsageError, match="already exists"):
        save(talk(1), str(tmp_path / "mine"))
    with pytest.raises(UsageError, match="cannot be written"):
        save(talk(1), str(tmp_path / "none" / "file"))
    assert (tmp_path / "mine").read_text() == "precious"
