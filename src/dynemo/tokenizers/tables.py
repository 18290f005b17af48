"""A tokenizer's tables, in a form that does not depend on the file they came from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenizerTables:
    """What a GGUF and a `tokenizer.json` of one model both say, spelled as each of them does."""

    #: By id; empty where an id has no token.
    tokens: list[str]
    #: Ids that are found in a text before it is split: control tokens and added ones.
    added: frozenset[int]
    #: `left right`, in order. None for a vocabulary that is not byte-level: SentencePiece's is
    #: merged by scores in a GGUF and by pairs in a `tokenizer.json`, so that neither form has the
    #: other's table.
    merges: list[str] | None
