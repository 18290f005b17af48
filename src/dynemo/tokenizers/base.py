"""What the rest of the program asks of a tokenizer, whichever file it came from."""

from collections.abc import Sequence
from typing import Protocol

from dynemo.tokenizers.source import TokenizerSource
from dynemo.tokenizers.tables import TokenizerTables


class Detokenizer(Protocol):
    """The text of one stream, piece by piece. Not shared between streams.

    The joined results of every `feed` and the final `flush` equal `Tokenizer.decode` of all ids.
    No piece holds U+FFFD for bytes that a later token completes.
    """

    def feed(self, ids: Sequence[int]) -> str:
        """The text that these further ids settle; may be empty."""
        ...

    def flush(self) -> str:
        """What was held back for more bytes. Called once, at the end."""
        ...


class Tokenizer(Protocol):
    """Text to token ids and back. Safe to use from several threads at once."""

    @property
    def vocab_size(self) -> int:
        """Ids are in range(vocab_size)."""
        ...

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """`add_special`: add BOS/EOS where the model's settings say so.
        `parse_special`: text that spells a control token becomes that token's id.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a whole sequence, control tokens left out."""
        ...

    def detokenizer(self) -> Detokenizer:
        """A fresh stream's state."""
        ...

    def token_id(self, text: str) -> int | None:
        """The id of the token that is spelled exactly so (special tokens included)."""
        ...

    def token_text(self, token_id: int) -> str | None:
        """The token's own spelling in the vocabulary (`<s>`, `<|eot_id|>`, ...)."""
        ...

    def source(self) -> TokenizerSource:
        """What it was made from, for another process. Raises ModelError if that is gone."""
        ...

    def lexicon(self) -> TokenizerTables:
        """Its tables, made anew with each call; tens of milliseconds for a large vocabulary."""
        ...
