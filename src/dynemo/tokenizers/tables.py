"""A tokenizer's lookup tables, in a form that does not depend on its file format."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenizerTables:
    """The tables that a GGUF and a `tokenizer.json` of one model have in common.

    Each entry keeps the spelling of the file that it came from.
    """

    #: Token texts by id. An id without a token has an empty text.
    tokens: list[str]
    #: Ids that are searched for in a text before it is split: control tokens and added tokens.
    added: frozenset[int]
    #: `left right` pairs in order of priority. None if the vocabulary is not byte-level: a GGUF
    #: merges SentencePiece by scores, a `tokenizer.json` by pairs, so the two files share no table.
    merges: list[str] | None
