"""The tokens that a text has at a place: what Unigram, RWKV and PLaMo tokenizers search with."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

Text = TypeVar("Text", str, bytes)


class Matcher(Generic[Text]):
    """Finds tokens by their first two units, whatever the vocabulary's longest token is."""

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
        """Lengths that a token at this place may have, longest first; not each is a token."""
        start = text[at : at + 2]
        longer: Sequence[int] = self._lengths.get(start, ())
        if len(start) < 2 or text[at : at + 1] not in self.ids:
            return longer
        return (*longer, 1)

    def longest(self, text: Text, at: int) -> Text | None:
        """The longest token at this place."""
        for length in self.lengths_at(text, at):
            token = text[at : at + length]
            if token in self.ids:
                return token
        return None
