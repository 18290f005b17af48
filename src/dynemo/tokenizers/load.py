"""Makes a tokenizer from its source."""

from dynemo.tokenizers.base import Tokenizer
from dynemo.tokenizers.source import GgufSource, TokenizerSource


def load(source: TokenizerSource) -> Tokenizer:
    """Returns the tokenizer that the source describes. Raises ModelError for an invalid source."""
    # Imported here so that a process which serves only GGUFs does not load the `tokenizers`
    # library.
    if isinstance(source, GgufSource):
        from dynemo.tokenizers.gguf.tokenizer import load_tokenizer

        return load_tokenizer(source.metadata)
    from dynemo.tokenizers.hf.tokenizer import HfTokenizer

    return HfTokenizer(source.file, source.settings)
