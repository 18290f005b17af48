"""Makes a tokenizer from its source."""

from dynemo.tokenizers.base import Tokenizer
from dynemo.tokenizers.source import GgufSource, TokenizerSource


def load(source: TokenizerSource) -> Tokenizer:
    """The tokenizer again. Raises ModelError where the source is none."""
    # Whoever serves GGUFs alone does not wait for the other's modules.
    if isinstance(source, GgufSource):
        from dynemo.tokenizers.gguf.tokenizer import load_tokenizer

        return load_tokenizer(source.metadata)
    from dynemo.tokenizers.hf.tokenizer import HfTokenizer

    return HfTokenizer(source.file, source.settings)
