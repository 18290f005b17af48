"""Compares two cards: equal prompts must give equal token ids and end at equal tokens.

A GGUF and a checkout of one model must be equal, although their files differ. So each part is
reduced to what both formats contain:

- vocabulary: the spelling of each id, with U+2581 as a space (converters write either). Padding
  that only one format has is removed: `[PAD7]` for a gap in the other's ids, and padding tokens at
  the end.
- merges: the pairs in order if both formats hold pairs, which is the case for byte-level BPE. For
  SentencePiece a GGUF holds scores, and a checkout holds pairs made from them. Then only the probe
  compares the merges.
- special tokens: tokens that are found in a text before it is split, and those that the template
  prints. Control tokens and other added tokens count alike, because converters distinguish them by
  spelling.
- pre-tokenization: no two formats describe it alike. So the ids of a fixed set of texts are
  compared, and the ids of words joined from the vocabulary, which show its merges. In these texts
  llama.cpp and `tokenizers` agree for one model: composed characters, no marks, and no capitals
  outside ASCII within words.
- template: the two templates that can render a conversation, as Jinja parses them. A format that a
  user has named counts too, because the template does not give it.
- EOS ids: the card's, and those that llama.cpp infers from their spelling. A GGUF's card always has
  them; a checkout's card has only those in its files.

Some parts are not compared: limits, sampling settings, and whether BOS is added to a prompt without
a template. For the latter the formats often disagree, and the ingress decides it for all instances.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping

from msgspec import Struct, json

from dynemo.answer.formats.choose import choose_format
from dynemo.answer.formats.format import Format
from dynemo.errors import RequestError
from dynemo.prompt.card.card import Card
from dynemo.prompt.template import ChatTemplate
from dynemo.tokenizers.base import Tokenizer
from dynemo.tokenizers.gguf.vocab import special_ids
from dynemo.tokenizers.tables import TokenizerTables

_PROBES = (
    "Hello, world! The quick brown fox jumps over the lazy dog.",
    "def parse(self, data: bytes) -> dict[str, int]:\n    return {k: v + 1 for k, v in x}\n",
    'for (int i = 0; i < n; ++i) { a[i] |= b->c * 2; }  // "quoted" \\n',
    "parseHTTPResponse getUserID snake_case_name CONSTANT_VALUE x86_64 v2.0.1",
    "https://example.com/path/to?query=1&b=%20#top user@example.org C:\\dir\\file.txt",
    "0 12 345 6789 12345 1234567 3.14159 1,234,567 2024-01-15 0x1F 50% $9.99",
    "I'm you're we'll they've he'd it's don't I'M WE'LL DON'T 'quoted' rock 'n' roll",
    "a  b   c    d     e\tf\t\tg\n\nh\n\n\ni \n j\r\nk",
    "  two leading spaces and trailing ones   ",
    "Grüße aus München, São Paulo, naïve café, señor, Çankaya",
    "Привет, мир! Γειά σου κόσμε. שלום עולם مرحبا بالعالم",
    "日本語のテキストです。中文文本，包含标点！한국어 텍스트",
    "😀 🚀👍 ok 🎉🎉",
    "a+b=c; x≤y, α→β ± 5 € £ © … “quoted” – dash—dash",
    "(((nested))) [[x]] {{y}} <tag attr='v'>text</tag> !!! ??? ... --- ###",
)
#: The number of ids, at equal distances, from which words of the vocabulary are taken.
_SAMPLED_IDS = 2048
_WORD = re.compile("[Ġ▁ ]?([a-z]{3,8})")
_PADDING = re.compile(r"[\[<][^\]>]*pad[^\]>]*[\]>]|<dummy\d+>", re.IGNORECASE)
_VARIABLE = re.compile(r"[a-z_]+_token\b")


class CardIdentity(Struct, frozen=True, kw_only=True):
    """A hash of each part, in hex, and one of all parts (`whole`)."""

    whole: str
    name: str
    vocabulary: str
    merges: str
    special_tokens: str
    pre_tokenization: str
    template: str
    eos: str


_PARTS = {
    "name": "the name",
    "vocabulary": "the vocabulary",
    "merges": "the merges",
    "special_tokens": "the special tokens",
    "pre_tokenization": "the pre-tokenization",
    "template": "the chat template",
    "eos": "the EOS ids",
}
#: If these tables differ, the ids of the probe differ as well, so the probe adds no information.
_TABLES = ("vocabulary", "merges", "special_tokens")
_PLURAL = ("merges", "special_tokens", "eos")


def identify(card: Card) -> CardIdentity:
    """Returns the card's identity. This takes 0.3 s for a vocabulary of 128,000 tokens.

    Raises ModelError if a tokenizer file can no longer be read.
    """
    tables = card.tokenizer.tables()
    tokens = _without_padding(tables.tokens)
    parts = {
        "name": _hash([card.name]),
        "vocabulary": _hash(tokens),
        "merges": _hash(tables.merges or ()),
        "special_tokens": _hash(_special(tables, tokens, card.template)),
        "pre_tokenization": _hash(_probed(card.tokenizer, tokens)),
        "template": _hash([*_template(card.template), *_own_format(card)]),
        "eos": _hash(map(str, _eos(card, tables, len(tokens)))),
    }
    short = {name: value[:16] for name, value in parts.items()}
    return CardIdentity(whole=_hash(parts.values()), **short)


def difference(mine: CardIdentity, theirs: CardIdentity) -> str:
    """Returns a clause such as `the chat template and the EOS ids differ`, or "" if equal."""
    parts = [name for name in _PARTS if getattr(mine, name) != getattr(theirs, name)]
    if any(name in parts for name in _TABLES):
        parts = [name for name in parts if name != "pre_tokenization"]
    if not parts:
        return ""
    labels = [_PARTS[name] for name in parts]
    listed = " and ".join(filter(None, [", ".join(labels[:-1]), labels[-1]]))
    return f"{listed} {'differ' if len(parts) > 1 or parts[0] in _PLURAL else 'differs'}"


def _hash(texts: Iterable[str]) -> str:
    # A vocabulary may hold bytes that are not text, as lone surrogates.
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()


def _without_padding(tokens: list[str]) -> list[str]:
    # Most vocabularies have neither, and a loop over 128,000 tokens is slow.
    joined = "\0".join(tokens)
    tokens = [text.replace("▁", " ") for text in tokens] if "▁" in joined else list(tokens)
    if "[PAD" in joined:
        for token_id, text in enumerate(tokens):
            if text == f"[PAD{token_id}]":
                tokens[token_id] = ""
    while tokens and (not tokens[-1] or _PADDING.fullmatch(tokens[-1])):
        tokens.pop()
    return tokens


def _special(tables: TokenizerTables, tokens: list[str], template: ChatTemplate) -> list[str]:
    added = sorted(i for i in tables.added if i < len(tokens) and tokens[i])
    printed = set(_VARIABLE.findall("\n".join(_rendering(template).values())))
    named = sorted((k, v) for k, v in template.special_tokens.items() if k in printed)
    return [*(f"{i} {tokens[i]}" for i in added), *(f"{k} {v}" for k, v in named)]


def _probed(tokenizer: Tokenizer, tokens: list[str]) -> list[str]:
    return [_ids(tokenizer, text) for text in (*_PROBES, _joined_words(tokens))]


def _ids(tokenizer: Tokenizer, text: str) -> str:
    try:
        # Parsing control tokens changes nothing, because no text here spells one. Not parsing them
        # would load a `tokenizer.json` a second time.
        ids = tokenizer.encode(text, add_special=False, parse_special=True)
    except RequestError:  # the vocabulary has no token for one of the characters
        return "-"
    return " ".join(map(str, ids))


def _joined_words(tokens: list[str]) -> str:
    step = max(1, len(tokens) // _SAMPLED_IDS)
    words = [found[1] for text in tokens[::step] if (found := _WORD.fullmatch(text))]
    return " ".join(
        word + words[(7 * number + 3) % len(words)] for number, word in enumerate(words)
    )


def _rendering(template: ChatTemplate) -> Mapping[str, str]:
    """Returns the templates that `ChatTemplate.name_for` can select."""
    return {k: template.sources[k] for k in ("default", "tool_use") if k in template.sources}


def _template(template: ChatTemplate) -> list[str]:
    # Jinja treats all line endings alike, and drops one at the end of the file.
    sources = _rendering(template)
    return [
        part
        for name, source in sources.items()
        for part in (name, re.sub("\r\n?", "\n", source).removesuffix("\n"))
    ]


def _own_format(card: Card) -> list[str]:
    if card.format in (Format(), choose_format(card.template)):
        return []
    return [json.encode(card.format).decode()]


def _eos(card: Card, tables: TokenizerTables, size: int) -> list[int]:
    spelled = special_ids(
        {"tokenizer.ggml.model": "", "tokenizer.ggml.tokens": tables.tokens or [""]}
    ).eog
    return sorted(i for i in spelled.union(card.eos_ids) if i < size)
