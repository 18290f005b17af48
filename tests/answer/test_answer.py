from collections.abc import Sequence
from typing import Any

from msgspec import structs

from dynemo.answer.output import OutputProcessor
from dynemo.answer.stops import StopAutomaton
from dynemo.messages.answer import Delta, EmbeddingPiece, Finish, FinishPiece, TextPiece
from dynemo.messages.request import Request, Sampling
from support.byte_tokenizer import Bytes
from support.pieces import ended

#: One token per byte, so that characters and stop strings cross token boundaries.
END = Finish("length", 3, 99, cached_tokens=2)


def _answer(
    stops: Sequence[str] = (),
    stop_ids: Sequence[int] = (),
    **fields: Any,
) -> OutputProcessor:
    request = Request(
        id="r",
        token_ids=[1, 2, 3],
        prompt="",
        max_tokens=99,
        sampling=Sampling(),
        stop_ids=list(stop_ids),
        **fields,
    )
    return OutputProcessor(1, request, Bytes(), StopAutomaton(stops) if stops else None)


def test_a_stop_id_that_the_request_shows_is_part_of_the_text() -> None:
    said = _answer(stop_ids=[33], shown={33: "!"}).feed(Delta(_ids("a!"), finish=END))
    assert said == ended(1, "a!", 2, END)
    said = _answer(stop_ids=[33]).feed(Delta(_ids("a!"), finish=END))
    assert said == ended(1, "a", 2, END)


def test_a_stop_id_of_the_client_is_told() -> None:
    met = structs.replace(END, matched=33)
    for stops in ((), ("z",)):
        said = _answer(stops, [33, 34], client_stop_ids=[33])
        assert said.feed(Delta(_ids("a!"), finish=END)) == ended(1, "a", 2, met)
        said = _answer(stops, [33, 34], client_stop_ids=[33])
        assert said.feed(Delta(_ids('a"'), finish=END)) == ended(1, "a", 2, END)
        said = _answer(stops, [33], client_stop_ids=[33], include_stop=True)
        assert said.feed(Delta(_ids("a!"), finish=END)) == ended(1, "a!", 2, met)


def test_a_stop_string_that_is_included() -> None:
    finish = Finish("stop", 3, 5, matched="bc")
    answer = _answer(["bc"], include_stop=True)
    assert answer.feed(Delta(_ids("xyab"))) == [TextPiece(1, "xya", 4)]
    assert answer.feed(Delta(_ids("cd"))) == ended(1, "bc", 1, finish)
    held = _answer(["abcd", "bc"], include_stop=True).feed(Delta(_ids("xabc"), finish=END))
    assert held == ended(1, "xabc", 4, Finish("stop", 3, 4, 2, matched="bc"))


def test_no_stop_string_ends_an_answer_before_its_least_tokens() -> None:
    answer = _answer(["b"], min_tokens=3)
    assert answer.feed(Delta(_ids("abb"))) == [TextPiece(1, "abb", 3)]
    finish = Finish("stop", 3, 5, matched="b")
    assert answer.feed(Delta(_ids("ab"))) == ended(1, "a", 2, finish)


def _ids(text: str) -> list[int]:
    return list(text.encode())


def test_text_comes_as_its_characters_complete() -> None:
    answer = _answer()
    smile = _ids("😀")
    assert answer.feed(Delta(smile[:3])) == [TextPiece(1, "", 3)]
    assert answer.feed(Delta([*smile[3:], 33])) == [TextPiece(1, "😀!", 2)]


def test_a_character_cut_off_by_the_end_is_still_shown() -> None:
    assert _answer().feed(Delta([*_ids("a"), 0xF0, 0x9F], finish=END)) == ended(
        1, "a\ufffd", 3, END
    )


def test_a_stop_string_ends_the_answer_and_is_not_shown() -> None:
    answer = _answer(["STOP"])
    assert answer.feed(Delta(_ids("one ST"))) == [TextPiece(1, "one ", 6)]
    # It counts up to the token that completes the stop string: "one ", then the four tokens of
    # STOP.
    finish = Finish("stop", 3, 8, matched="STOP")
    assert answer.feed(Delta(_ids("OP two"))) == ended(1, "", 2, finish)


def test_text_that_only_looked_like_a_stop_is_shown() -> None:
    answer = _answer(["STOP"])
    answer.feed(Delta(_ids("ST")))
    assert answer.feed(Delta(_ids("AY"))) == [TextPiece(1, "STAY", 2)]


def test_held_text_is_shown_at_the_end() -> None:
    answer = _answer(["STOP"])
    assert answer.feed(Delta(_ids("ST"), finish=END)) == ended(1, "ST", 2, END)


def test_a_stop_in_the_last_delta_wins_over_its_reason() -> None:
    pieces = _answer(["x"]).feed(Delta(_ids("abx"), finish=END))
    assert pieces == ended(1, "ab", 3, Finish("stop", 3, 3, 2, matched="x"))


def test_a_stop_inside_text_held_for_a_longer_one_still_counts() -> None:
    pieces = _answer(["abcd", "bc"]).feed(Delta(_ids("xabc"), finish=END))
    assert pieces == ended(1, "xa", 4, Finish("stop", 3, 4, 2, matched="bc"))


def test_an_engine_that_gives_text_is_stopped_too() -> None:
    answer = _answer(["\n\n"])
    assert answer.feed(Delta(texts=["one", "", "\n"], cached_tokens=1)) == [TextPiece(1, "one", 3)]
    finish = Finish("stop", 3, 4, 1, matched="\n\n")
    assert answer.feed(Delta(texts=["\n", "two"])) == ended(1, "", 1, finish)


def test_an_eos_is_not_shown_even_if_it_is_not_a_control_token() -> None:
    end = Finish("stop", 3, 2)
    assert _answer(stop_ids=[33]).feed(Delta(_ids("a!"), finish=end)) == ended(1, "a", 2, end)
    assert _answer(["z"], [33]).feed(Delta(_ids("a!"), finish=end)) == ended(1, "a", 2, end)
    assert _answer(stop_ids=[33]).feed(Delta(_ids("a!"))) == [TextPiece(1, "a!", 2)]


def test_an_embedding_comes_before_its_finish() -> None:
    end = Finish("stop", 3, 0)
    pieces = _answer().feed(Delta(finish=end, embedding=b"\0\0\x80?"))
    assert pieces == [EmbeddingPiece(1, b"\0\0\x80?"), FinishPiece(1, end)]


def test_a_delta_that_adds_nothing_makes_no_piece() -> None:
    assert _answer().feed(Delta(cached_tokens=2)) == []
