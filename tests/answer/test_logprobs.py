"""Each token's log probability comes with the token's text, however that text is held back."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dynemo.answer.output import OutputProcessor
from dynemo.answer.stops import StopAutomaton
from dynemo.messages.answer import (
    Delta,
    Finish,
    FinishPiece,
    Piece,
    PromptPiece,
    Scores,
    TextPiece,
    TokenLogprob,
)
from dynemo.messages.request import Request, Sampling
from dynemo.messages.scores import LEAST, pack_score, unpack_score
from dynemo.tokenizers.detokenize import ByteDetokenizer, with_shown
from support.byte_tokenizer import Bytes

END = Finish("length", 1, 99)
_BYTES = [bytes([byte]) for byte in range(256)]
#: After the bytes: tokens of several bytes, of parts of characters, and control tokens.
MORE = [b"ab", b"STOP", b"a\xf0\x9f", b"\x98\x80b", "é".encode(), b"", b""]
CONTROL = {261: "<end>", 262: "<call>"}


class Words(Bytes):
    """A tokenizer with tokens of one and of several bytes, and two control tokens."""

    vocab_size = 256 + len(MORE)

    def detokenizer(self, shown: Any = ()) -> ByteDetokenizer:
        spelled = {token_id: CONTROL[token_id].encode() for token_id in shown}
        return ByteDetokenizer(with_shown(self.token_bytes, spelled))

    def token_bytes(self, token_id: int) -> bytes:
        return [*_BYTES, *MORE][token_id]

    def token_text(self, token_id: int) -> str | None:
        return CONTROL.get(token_id)


def output(stops: Sequence[str] = (), **fields: Any) -> OutputProcessor:
    base: dict[str, Any] = {"token_ids": [65], "logprobs": 1, **fields}
    request = Request(id="r", prompt="", max_tokens=99, sampling=Sampling(), **base)
    return OutputProcessor(0, request, Words(), StopAutomaton(stops) if stops else None)


def scored(ids: Sequence[int], **fields: Any) -> Delta:
    """Returns a delta in which the score of token 97 is -97, and so on."""
    scores = [pack_score(token_id, -float(token_id), [(1, -0.5)]) for token_id in ids]
    return Delta(list(ids), scores=Scores(scores), **fields)


def entries(pieces: Sequence[Piece]) -> list[TokenLogprob]:
    return [entry for piece in pieces if isinstance(piece, TextPiece) for entry in piece.logprobs]


def text(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, TextPiece))


def test_a_score_survives_its_packing() -> None:
    packed = pack_score(-1, float("-inf"), [(7, float("nan")), (2**31 - 1, -0.25)])
    assert unpack_score(packed) == [(-1, LEAST), (7, LEAST), (2**31 - 1, -0.25)]
    assert unpack_score(b"") == []


def test_one_entry_for_each_token() -> None:
    [piece] = output().feed(scored([97, 256, 98]))
    assert isinstance(piece, TextPiece)
    assert [(e.text, e.bytes, e.logprob) for e in piece.logprobs] == [
        ("a", b"a", -97.0),
        ("ab", b"ab", -256.0),
        ("b", b"b", -98.0),
    ]
    assert piece.logprobs[0].top == (TokenLogprob("\x01", -0.5, b"\x01", (), 1),)


def test_parts_of_a_character_wait_for_it_and_keep_their_bytes() -> None:
    answer = output()
    pieces = answer.feed(scored([258]))
    assert (text(pieces), entries(pieces)) == ("", [])
    found = entries(answer.feed(scored([259, 97])))
    assert [(e.text, e.bytes) for e in found] == [
        ("a", b"a\xf0\x9f"),
        ("😀b", b"\x98\x80b"),
        ("a", b"a"),
    ]


def test_a_control_token_has_an_entry_only_if_it_is_shown() -> None:
    assert [e.text for e in entries(output().feed(scored([97, 262, 98])))] == ["a", "b"]
    shown = output(shown={262: "<call>"}).feed(scored([97, 262, 98]))
    assert [(e.text, e.bytes) for e in entries(shown)] == [
        ("a", b"a"),
        ("<call>", b"<call>"),
        ("b", b"b"),
    ]


def test_a_stop_string_drops_its_entries_and_cuts_the_one_it_begins_in() -> None:
    pieces = output(["ST"]).feed(scored([97, 257, 98]))
    assert ([e.text for e in entries(pieces)], text(pieces)) == (["a"], "a")
    pieces = output(["TO"]).feed(scored([97, 257, 98]))
    assert [(e.text, e.bytes) for e in entries(pieces)] == [("a", b"a"), ("S", b"S")]
    pieces = output(["TO"], include_stop=True).feed(scored([97, 257, 98]))
    assert [(e.text, e.bytes) for e in entries(pieces)] == [("a", b"a"), ("STO", b"STO")]


def test_text_that_is_held_back_keeps_its_entries() -> None:
    answer = output(["abc"])
    assert entries(answer.feed(scored([97, 98]))) == []
    pieces = answer.feed(scored([100], finish=END))
    assert [e.text for e in entries(pieces)] == ["a", "b", "d"]
    assert isinstance(pieces[-1], FinishPiece)


def test_an_engine_that_gives_text_and_no_ids_of_its_tokens() -> None:
    """The bytes of an unknown token are those that the other tokens of its character leave."""
    score = [pack_score(token_id, -1.0) for token_id in (-1, 0xF0, -1, 0x98, 0x80)]
    delta = Delta(texts=["a", "", "", "", "😀"], scores=Scores(score))
    found = entries(output().feed(delta))
    assert [e.bytes for e in found] == [b"a", b"\xf0", b"", b"", b"\x9f\x98\x80"]
    assert "".join(e.text for e in found) == "a😀"


def test_an_engine_that_scores_only_the_last_token_of_a_character() -> None:
    scores = [pack_score(97, -1.0), b"", b"", pack_score(0x80, -2.0)]
    delta = Delta(texts=["a", "", "", "😀"], scores=Scores(scores))
    found = entries(output().feed(delta))
    assert [(e.text, e.bytes) for e in found] == [("a", b"a"), ("😀", "😀".encode())]


def test_the_prompt_has_its_own_piece() -> None:
    scores = [b"", pack_score(98, -2.0, [(97, -1.0)])]
    delta = Delta([97], scores=Scores([], scores))
    for fields in ({"logprobs": None}, {"logprobs": 0}):
        prompt, said = output(token_ids=[97, 98], **fields).feed(delta)
        assert said == TextPiece(0, "a", 1)
        assert isinstance(prompt, PromptPiece)
        assert prompt.logprobs == (
            None,
            TokenLogprob("b", -2.0, b"b", (TokenLogprob("a", -1.0, b"a", (), 97),), 98),
        )


@given(
    st.lists(st.sampled_from([97, 98, 240, 159, 0xC3, *range(256, 263)]), max_size=20),
    st.lists(st.sampled_from(["b", "aba", "STOP", "TOPa", "😀", "é"]), max_size=2),
    st.lists(st.integers(1, 5), max_size=20),
    st.booleans(),
    st.integers(0, 4),
)
def test_joined_entries_are_the_text(
    ids: list[int], stops: list[str], cuts: list[int], include_stop: bool, min_tokens: int
) -> None:
    fields: dict[str, Any] = {
        "include_stop": include_stop, "min_tokens": min_tokens, "stop_ids": [261],
        "shown": {262: "<call>"},
    }  # fmt: skip

    def answered(parts: Sequence[Sequence[int]]) -> list[Piece]:
        answer, pieces = output(stops, **fields), []
        for number, part in enumerate(parts):
            pieces += answer.feed(scored(part, finish=END if number == len(parts) - 1 else None))
            assert text(pieces) == "".join(entry.text for entry in entries(pieces))
            if answer_ended(pieces):
                break
        return pieces

    whole = answered([ids])
    parts, rest = [], list(ids)
    for cut in cuts:
        parts.append(rest[:cut])
        rest = rest[cut:]
    split = answered([*parts, rest])
    assert text(split) == text(whole)
    assert entries(split) == entries(whole)
    assert "".join(entry.text for entry in entries(whole)) == text(whole)
    spelled = b"".join(entry.bytes for entry in entries(whole))
    assert spelled.decode(errors="replace") == text(whole)


def answer_ended(pieces: Sequence[Piece]) -> bool:
    return bool(pieces) and isinstance(pieces[-1], FinishPiece)
