"""Encodes a prompt in which some texts of control tokens must stay plain characters.

The `tokenizers` library finds added tokens in the whole text, or leaves out all control tokens. So
this module works in two steps. The model's own tokenizer finds the tokens in the text with its
marks, and reports their places. Then a second object of the library encodes the text without marks.
It finds no added token by its own text, only by a placeholder: a random word that stands at each
place, with the token's own rules for white space. So the rest of the text is split and encoded as
if it stood between the real tokens.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from secrets import choice
from typing import TYPE_CHECKING

from dynemo.tokenizers.base import no_plain_form

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_RULES = ("single_word", "lstrip", "rstrip", "normalized")


@dataclass(frozen=True, slots=True)
class _Place:
    start: int
    end: int
    token_id: int


class MarkedEncoder:
    """`backend` is the model's own tokenizer, and `other` is a second one, which this changes."""

    def __init__(self, backend: "Backend", other: "Backend") -> None:
        from tokenizers import AddedToken

        self._backend = backend
        self._added: dict[int, AddedToken] = backend.get_added_tokens_decoder()
        unknown = getattr(backend.model, "unk_token", None)
        self._control = {
            token_id
            for token_id, token in self._added.items()
            if token.special and token.content not in (unknown, "<unk>")
        }
        # The library skips special tokens, so here every added token is one.
        other.add_special_tokens(
            [_copy(token, token.content, special=True) for token in self._added.values()]
        )
        other.encode_special_tokens = True
        # Random, so that no text holds one; letters only, so that no normalization changes one.
        secret = "".join(choice(_LETTERS) for _ in range(24))
        self._cut = f"{secret}{_letters(0)}"
        self._placeholders = {
            token_id: f"{secret}{_letters(n)}" for n, token_id in enumerate(self._added, 1)
        }
        other.add_tokens(
            [AddedToken(self._cut, normalized=False)]
            + [_copy(self._added[i], text) for i, text in self._placeholders.items()]
        )
        self._ids: dict[int | None, int | None] = {
            other.token_to_id(text): token_id for token_id, text in self._placeholders.items()
        }
        self._ids[other.token_to_id(self._cut)] = None
        self._other = other

    def encode(self, text: str, marks: Mapping[str, str]) -> list[int]:
        places = list(self._places(text, marks))
        table = {ord(mark): meant for mark, meant in marks.items()}
        ids = self._encode(text, places, table)
        if ids is None:  # the vocabulary itself makes a control token of its text: cut such a text
            cut = {ord(mark): f"{meant}{self._cut}" for mark, meant in marks.items()}
            ids = self._encode(text, places, cut)
        if ids is None:
            raise no_plain_form()
        return ids

    def _places(self, text: str, marks: Mapping[str, str]) -> Iterable[_Place]:
        """Yields the added tokens in the text, in order."""
        [found] = self._backend.encode_batch([text], add_special_tokens=False)
        for token_id, (start, end) in zip(found.ids, found.offsets, strict=True):
            token = self._added.get(token_id)
            if token is None:
                continue
            # The place includes the white space that the token absorbs.
            span, content = text[start:end], token.content
            at = span.find(content)
            if at < 0 and token.normalized:
                at = span.lower().find(content.lower())
            # What is not found is text for which the vocabulary has only this id (unknown text).
            if at >= 0 and not any(mark in span for mark in marks):
                yield _Place(start + at, start + at + len(content), token_id)

    def _encode(
        self, text: str, places: Iterable[_Place], table: Mapping[int, str]
    ) -> list[int] | None:
        """Returns the ids, or None if the vocabulary made a control token of plain text."""
        parts: list[str] = []
        end = 0
        for place in places:
            parts += text[end : place.start].translate(table), self._placeholders[place.token_id]
            end = place.end
        parts.append(text[end:].translate(table))
        [found] = self._other.encode_batch_fast(["".join(parts)], add_special_tokens=False)
        ids: list[int] = []
        for found_id in found.ids:
            if found_id in self._control:
                return None
            token_id = self._ids.get(found_id, found_id)
            if token_id is not None:
                ids.append(token_id)
        return ids


def _copy(token: "AddedToken", content: str, *, special: bool = False) -> "AddedToken":
    from tokenizers import AddedToken

    rules = {name: getattr(token, name) for name in _RULES}
    return AddedToken(content, special=special, **rules)


def _letters(number: int) -> str:
    """Returns a number as six letters."""
    digits = []
    for _ in range(6):
        number, digit = divmod(number, 26)
        digits.append(_LETTERS[digit])
    return "".join(digits)
