from collections.abc import Sequence

from dynemo.answer.output import OutputProcessor
from dynemo.messages import Delta, Finish, Piece, Request, Sampling
from dynemo.tokenizers.detokenize import ByteDetokenizer

#: One token a byte, so that characters and stop strings cross token boundaries.
END = Finish("length", 3, 99, cached_tokens=2)


def _answer(stops: Sequence[str] = (), stop_ids: Sequence[int] = ()) -> OutputProcessor:
    request = Request(
        id="r",
        token_ids=[1, 2, 3],
        prompt="",
        max_tokens=99,
        sampling=Sampling(),
        stop_ids=list(stop_ids),
    )
    return OutputProcessor(1, request, ByteDetokenizer(lambda token_id: bytes([token_id])), stops)


def _ids(text: str) -> list[int]:
    return list(text.encode())


def test_text_comes_as_its_characters_complete() -> None:
    answer = _answer()
    smile = _ids("😀")
    assert answer.feed(Delta(smile[:3])) == Piece(1, "", 3, None)
    assert answer.feed(Delta([*smile[3:], 33])) == Piece(1, "😀!", 2, None)


def test_a_character_cut_off_by_the_end_is_still_shown() -> None:
    assert _answer().feed(Delta([*_ids("a"), 0xF0, 0x9F], finish=END)) == Piece(
        1, "a\ufffd", 3, END
    )


def test_a_stop_string_ends_the_answer_and_is_not_shown() -> None:
    answer = _answer(["STOP"])
    assert answer.feed(Delta(_ids("one ST"))) == Piece(1, "one ", 6, None)
    piece = answer.feed(Delta(_ids("OP two")))
    assert piece.text == ""
    # Counted up to the token that completes it: "one ", then the four of STOP.
    assert piece.finish == Finish("stop", 3, 8)


def test_what_only_looked_like_a_stop_is_given_back() -> None:
    answer = _answer(["STOP"])
    answer.feed(Delta(_ids("ST")))
    assert answer.feed(Delta(_ids("AY"))) == Piece(1, "STAY", 2, None)


def test_what_is_held_back_comes_with_the_end() -> None:
    answer = _answer(["STOP"])
    assert answer.feed(Delta(_ids("ST"), finish=END)) == Piece(1, "ST", 2, END)


def test_a_stop_in_the_last_delta_wins_over_its_reason() -> None:
    piece = _answer(["x"]).feed(Delta(_ids("abx"), finish=END))
    assert (piece.text, piece.finish) == ("ab", Finish("stop", 3, 3, 2))


def test_a_stop_inside_what_was_held_for_a_longer_one_still_counts() -> None:
    piece = _answer(["abcd", "bc"]).feed(Delta(_ids("xabc"), finish=END))
    assert (piece.text, piece.finish and piece.finish.reason) == ("xa", "stop")


def test_an_engine_that_gives_text_is_stopped_too() -> None:
    answer = _answer(["\n\n"])
    assert answer.feed(Delta(texts=["one", "", "\n"], cached_tokens=1)) == Piece(1, "one", 3, None)
    piece = answer.feed(Delta(texts=["\n", "two"]))
    assert piece == Piece(1, "", 1, Finish("stop", 3, 4, 1))


def test_an_eos_that_is_no_control_token_is_not_shown() -> None:
    end = Finish("stop", 3, 2)
    assert _answer(stop_ids=[33]).feed(Delta(_ids("a!"), finish=end)) == Piece(1, "a", 2, end)
    assert _answer(["z"], [33]).feed(Delta(_ids("a!"), finish=end)) == Piece(1, "a", 2, end)
    assert _answer(stop_ids=[33]).feed(Delta(_ids("a!"))).text == "a!"
