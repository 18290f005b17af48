"""Finds the tokens at a position of a text, for the Unigram, RWKV and PLaMo tokenizers."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

Text = TypeVar("Text", str, bytes)


class Matcher(Generic[Text]):
    """Finds tokens by their first two units, so its speed does not depend on the longest token."""

    def __init__(self, tokens: Iterable[tuple[Text, int]]) -> None:
        #: Of equal tokens the last one counts.
        self.ids: dict[Text, int] = dict(tokens)
        lengths: dict[Text, set[int]] = defaultdict(set)
        for token in self.ids:
            lengths[token[:2]].add(len(token))
        self._lengths: dict[Text, list[int]] = {
            start: sorted(found, reverse=True) for start, found in lengths.items()
        }

    def lengths_at(self, text: Text, at: int) -> Sequence[int]:
        """Returns the possible lengths of a token at this position, longest first.

        Not every length belongs to a token.
        """
        start = text[at : at + 2]
        longer: Sequence[int] = self._lengths.get(start, ())
        if len(start) < 2 or text[at : at + 1] not in self.ids:
            return longer
        return (*longer, 1)

    def longest(self, text: Text, at: int) -> Text | None:
        """Returns the longest token at this position, or None."""
        for length in self.lengths_at(text, at):
            token = text[at : at + length]
            if token in self.ids:
                return token
        return None
