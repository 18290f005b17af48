"""The bytes of single tokens, control tokens included."""

from dynemo.tokenizers.base import Tokenizer


def is_control(tokenizer: Tokenizer, token_id: int) -> bool:
    """Whether a token has no text. An id without a token counts as such."""
    return not (_is_known(tokenizer, token_id) and tokenizer.token_bytes(token_id))


def spelled_bytes(tokenizer: Tokenizer, token_id: int) -> bytes:
    """The bytes of a token in a text; of a control token, those of its spelling."""
    if not _is_known(tokenizer, token_id):
        return b""
    found = tokenizer.token_bytes(token_id)
    return found or (tokenizer.token_text(token_id) or "").encode("utf-8", "surrogateescape")


def _is_known(tokenizer: Tokenizer, token_id: int) -> bool:
    """Whether the id is of the vocabulary. A model may have more rows than that."""
    return 0 <= token_id < tokenizer.vocab_size
