"""A tokenizer with one token per byte, for tests of limits and defaults."""

from collections.abc import Collection, Mapping, Sequence

from dynemo.errors import ModelError
from dynemo.tokenizers.base import Detokenizer, WholeTexts
from dynemo.tokenizers.detokenize import ByteDetokenizer
from dynemo.tokenizers.source import TokenizerSource
from dynemo.tokenizers.tables import TokenizerTables


class Bytes:
    vocab_size = 256

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return list(text.encode())

    def encode_marked(self, text: str, marks: Mapping[str, str]) -> list[int]:
        return list(text.translate({ord(mark): meant for mark, meant in marks.items()}).encode())

    def whole_texts(self) -> WholeTexts:
        return WholeTexts(frozenset(), frozenset())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode()

    def detokenizer(self, shown: Collection[int] = ()) -> Detokenizer:
        return ByteDetokenizer(lambda token_id: bytes([token_id]))

    def token_id(self, text: str) -> int | None:
        return None

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id])

    def token_text(self, token_id: int) -> str | None:
        return None

    def source(self) -> TokenizerSource:
        raise ModelError("it was made from nothing")

    def tables(self) -> TokenizerTables:
        return TokenizerTables([chr(byte) for byte in range(256)], frozenset(), None)
