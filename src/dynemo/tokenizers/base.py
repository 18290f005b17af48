"""The interface of a tokenizer, whichever file it was loaded from."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dynemo.errors import RequestError
from dynemo.tokenizers.source import TokenizerSource
from dynemo.tokenizers.tables import TokenizerTables


class Detokenizer(Protocol):
    """Turns the token ids of one stream into text, step by step.

    Streams do not share a detokenizer.

    The joined results of every `feed` and the final `flush` equal `Tokenizer.decode` of all ids. No
    result holds U+FFFD for bytes that a later token completes.
    """

    def feed(self, ids: Sequence[int]) -> str:
        """Returns the text that these further ids complete. It may be empty."""
        ...

    def flush(self) -> str:
        """Returns the text that was held back for more bytes. Call it once, at the end."""
        ...


@dataclass(frozen=True, slots=True)
class WholeTexts:
    """The texts of the tokens that a tokenizer finds in a text before it splits the rest.

    `is_folded`: it also finds control tokens in a text that only becomes theirs by its Unicode
    normalization.
    """

    control: frozenset[str]  #: found only with `parse_special`
    others: frozenset[str]
    is_folded: bool = False


class Tokenizer(Protocol):
    """Turns text into token ids and back. Several threads may use it at once."""

    @property
    def vocab_size(self) -> int:
        """The number of ids. Valid ids are in range(vocab_size)."""
        ...

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Returns the token ids of `text`.

        `add_special`: add BOS and EOS as the model's settings say.
        `parse_special`: text that spells a control token becomes that token's id.
        Raises RequestError or UnicodeEncodeError for a lone surrogate and for other text that has
        no tokens.
        """
        ...

    def encode_marked(self, text: str, marks: Mapping[str, str]) -> list[int]:
        """Encodes like `encode(text, add_special=False, parse_special=True)`, except for marks.

        A mark is a character that stands for another one (its value), and that no token holds. The
        other character belongs to no token that is found whole, and its neighbours are encoded
        together with it. Raises what `encode` raises.
        """
        ...

    def whole_texts(self) -> WholeTexts:
        """Returns the texts that are never split. Takes milliseconds."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of a whole sequence, without its control tokens."""
        ...

    def detokenizer(self, shown: Collection[int] = ()) -> Detokenizer:
        """Returns a detokenizer for a new stream.

        The control tokens `shown` have their spelling as their text. Others have no text.
        """
        ...

    def token_id(self, text: str) -> int | None:
        """Returns the id of the token with exactly this spelling, special tokens included."""
        ...

    def token_text(self, token_id: int) -> str | None:
        """Returns the token's spelling in the vocabulary (`<s>`, `<|eot_id|>`, ...)."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Returns the token's bytes inside a text. A control token has none.

        The id must be in range(vocab_size).
        """
        ...

    def source(self) -> TokenizerSource:
        """Returns the values from which another process can make this tokenizer.

        Raises ModelError if its file can no longer be read.
        """
        ...

    def tables(self) -> TokenizerTables:
        """Builds the lookup tables: tens of milliseconds for a large vocabulary."""
        ...


def no_plain_form() -> RequestError:
    """The error of `encode_marked` for a text that the tokenizer can only make a control token."""
    return RequestError(
        "The messages hold the text of a control token, and the model's tokenizer has no other "
        "form of it. Remove it, or start dynemo-run with --special-tokens-in-content parse.",
        param="messages",
    )
