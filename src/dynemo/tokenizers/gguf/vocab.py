"""A GGUF's vocabulary: its tokens, their types and the special tokens.

The code follows `llama_vocab::impl::load` in llama.cpp's `llama-vocab.cpp`: the defaults of each
tokenizer model, the ids in the metadata, and what llama.cpp infers from a token's spelling.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dynemo.errors import ModelError
from dynemo.spelling import quoted

#: The key under which `read_gguf` adds the number of tensors to the metadata.
TENSOR_COUNT = "GGUF.tensor_count"

#: Ends the token of six bases of DNA.
DNA_MARK = "\ue000"

UNKNOWN, UNUSED, NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 2, 4, 8, 16, 32
LSTRIP, RSTRIP = 64, 128

# `tokenizer.ggml.token_type` -> attributes. Any other type has none: its token has no text.
_ATTRIBUTES = {1: NORMAL, 2: UNKNOWN, 3: CONTROL, 4: USER_DEFINED, 5: UNUSED, 6: BYTE}

_EOT = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>",
    "<EOT>", "_<EOT>", "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>",
)  # fmt: skip
_EOM = ("<|eom_id|>",)
_EOG = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
    "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
    "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
    "<｜end▁of▁sentence｜>", "[e~[", "<|ifm|im_end|>",
)  # fmt: skip
# Fill-in-the-middle tokens are control tokens. The last three also end a generation.
_FIM = {
    "fim_pre": (
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
        "<|code_prefix|>", "<|prefix|>", "<|plamo:fim_prefix|>",
    ),
    "fim_suf": (
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
        "<|code_suffix|>", "<|suffix|>", "<|plamo:fim_suffix|>",
    ),
    "fim_mid": (
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
        "<|code_middle|>", "<|middle|>", "<|plamo:fim_middle|>",
    ),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>", "<|plamo:file_separator|>"),
}  # fmt: skip
_FIM_ENDS = ("fim_pad", "fim_rep", "fim_sep")
_ALWAYS_SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
_SPELLINGS = frozenset((*_EOT, *_EOM, *_EOG, *_ALWAYS_SHOWN, "<|plamo:eos|>")).union(*_FIM.values())

# The ids to use if the metadata names none.
_DEFAULT_IDS: dict[str, dict[str, int]] = {
    "llama": {"bos": 1, "eos": 2, "unk": 0},
    "gpt2": {"bos": 11, "eos": 11},
    "hybriddna": {"bos": 11, "eos": 11},
    "whitespace": {"bos": 11, "eos": 11},
    "gemma4": {},
    "t5": {"eos": 1, "unk": 2, "pad": 0},
    "rwkv": {},
    "plamo2": {"bos": 1, "eos": 2, "unk": 0, "pad": 3},
    "plamo3": {"bos": 1, "eos": 2, "unk": 0, "pad": 3},
    "bert": {"bos": 101, "unk": 100, "sep": 102, "pad": 0},
}
# The format itself spells "seperator" this way.
_ID_KEYS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "eot": "eot_token_id",
    "eom": "eom_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",
    "pad": "padding_token_id",
}
_FIM_KEYS = (
    ("fim_pre", "fim_pre_token_id"),
    ("fim_suf", "fim_suf_token_id"),
    ("fim_mid", "fim_mid_token_id"),
    ("fim_pad", "fim_pad_token_id"),
    ("fim_rep", "fim_rep_token_id"),
    ("fim_sep", "fim_sep_token_id"),
    ("fim_pre", "prefix_token_id"),
    ("fim_suf", "suffix_token_id"),
    ("fim_mid", "middle_token_id"),
)


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """The ids with a role. A role without a token is None.

    `eog` holds every id that ends a generation, including `eos`, `eot` and `eom`.
    """

    bos: int | None
    eos: int | None
    eot: int | None
    eom: int | None
    unk: int | None
    sep: int | None
    pad: int | None
    eog: frozenset[int]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A GGUF's vocabulary, indexed by id.

    `tokenizer_model` is the value of `tokenizer.ggml.model`. `attributes[id]` is a union of the
    flags above. `scores` is empty if the file has none.
    """

    tokenizer_model: str
    tokens: list[str]
    ids: dict[str, int]
    scores: list[float]
    attributes: list[int]
    special: SpecialIds


def special_ids(metadata: Mapping[str, object]) -> SpecialIds:
    """Returns the special ids much faster than `load_vocabulary`. Raises ModelError."""
    tokens = _tokens(metadata)
    ids = {text: i for i, text in enumerate(tokens) if text in _SPELLINGS}
    return _special(metadata, _tokenizer_model(metadata), ids, [0] * len(tokens))


def load_vocabulary(metadata: Mapping[str, object]) -> Vocabulary:
    """Loads the vocabulary under `tokenizer.ggml.*`.

    Raises ModelError if it is missing or invalid.
    """
    model = _tokenizer_model(metadata)
    tokens = _tokens(metadata)
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    if len(ids) != len(tokens):
        twice = next(text for i, text in enumerate(tokens) if ids[text] != i)
        raise ModelError(
            f"The GGUF's vocabulary has the token {quoted(twice)} twice. Download it again."
        )
    attributes = _attributes(metadata, len(tokens))
    special = _special(metadata, model, ids, attributes)
    _strip_spaces(metadata, ids, attributes)
    if model == "hybriddna":
        tokens = _without_dna_marks(tokens, ids)
    return Vocabulary(model, tokens, ids, _scores(metadata, len(tokens)), attributes, special)


def flag(metadata: Mapping[str, object], name: str, default: bool) -> bool:
    """Returns a boolean under `tokenizer.ggml.`. A value of another type counts as missing."""
    value = metadata.get(f"tokenizer.ggml.{name}")
    return value if isinstance(value, bool) else default


def _tokenizer_model(metadata: Mapping[str, object]) -> str:
    model = metadata.get("tokenizer.ggml.model")
    if not isinstance(model, str):
        raise ModelError(
            "The GGUF has no tokenizer (tokenizer.ggml.model). Download a complete GGUF, or name "
            "a checkout with --model-config."
        )
    return model


def _tokens(metadata: Mapping[str, object]) -> list[str]:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens or not isinstance(tokens[0], str):
        raise ModelError(
            "The GGUF has no vocabulary (tokenizer.ggml.tokens). Download a complete GGUF."
        )
    if "" in tokens:
        return [text or f"[EMPTY_{i}]" for i, text in enumerate(tokens)]
    return tokens


def _without_dna_marks(tokens: list[str], ids: dict[str, int]) -> list[str]:
    """Returns the tokens as they are printed.

    `ids` keeps the mark, which distinguishes bases from the same letters in words.
    """
    first = ids.get("<oov>", len(tokens)) + 1
    return [*tokens[:first], *(text.removesuffix(DNA_MARK) for text in tokens[first:])]


def _scores(metadata: Mapping[str, object], count: int) -> list[float]:
    scores = metadata.get("tokenizer.ggml.scores", [])
    return [*map(float, _checked_numbers(scores, count, "scores", (int, float)))]


def _attributes(metadata: Mapping[str, object], count: int) -> list[int]:
    types = metadata.get("tokenizer.ggml.token_type", [])
    numbers = _checked_numbers(types, count, "token_type", (int,))
    if not numbers:
        return [NORMAL] * count
    return [_ATTRIBUTES.get(number, 0) for number in numbers[:count]]


def _checked_numbers(values: object, count: int, name: str, types: tuple[type, ...]) -> list[int]:
    if not isinstance(values, list) or (values and not isinstance(values[0], types)):
        raise ModelError(
            f"The GGUF's tokenizer.ggml.{name} is not a list of numbers. Download it again."
        )
    if values and len(values) < count:
        raise ModelError(
            f"The GGUF's tokenizer.ggml.{name} has {len(values)} values for {count} tokens. "
            "Download it again."
        )
    return values


def _special(
    metadata: Mapping[str, object], model: str, ids: dict[str, int], attributes: list[int]
) -> SpecialIds:
    named = {
        role: _named_id(metadata, key, _DEFAULT_IDS.get(model, {}).get(role), len(attributes))
        for role, key in _ID_KEYS.items()
    }
    if metadata.get("tokenizer.ggml.pre") in ("glm4", "glm5", "chatglm-bpe"):
        named["bos"] = _named_id(metadata, _ID_KEYS["bos"], None, len(attributes))
    named["eot"] = _found(named["eot"], _EOT, ids, attributes)
    named["eom"] = _found(named["eom"], _EOM, ids, attributes)
    ends = _fim_ends(metadata, ids, attributes)
    for text in _EOG:
        if text in ids:
            ends.add(ids[text])
            attributes[ids[text]] |= CONTROL
    for text in _ALWAYS_SHOWN:
        if text in ids:
            attributes[ids[text]] = USER_DEFINED
    ends.update(i for i in (named["eos"], named["eot"], named["eom"]) if i is not None)
    _correct_ends(ends, ids, attributes)
    return SpecialIds(**named, eog=frozenset(ends))


def _named_id(
    metadata: Mapping[str, object], key: str, default: int | None, count: int
) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count:
        return value
    return default if default is not None and default < count else None


def _found(
    named: int | None, spellings: tuple[str, ...], ids: dict[str, int], attributes: list[int]
) -> int | None:
    """Returns the named id, or the first spelling that is a token and makes it a control token.

    llama.cpp takes the first one in its hash table. That differs only if a vocabulary has several
    tokens of one list.
    """
    if named is not None:
        return named
    for text in spellings:
        if text in ids:
            attributes[ids[text]] |= CONTROL
            return ids[text]
    return None


def _fim_ends(
    metadata: Mapping[str, object], ids: dict[str, int], attributes: list[int]
) -> set[int]:
    named: dict[str, int | None] = dict.fromkeys(_FIM)
    for role, key in _FIM_KEYS:
        named[role] = _named_id(metadata, key, named[role], len(attributes))
    for role, spellings in _FIM.items():
        named[role] = _found(named[role], spellings, ids, attributes)
    return {i for role in _FIM_ENDS if (i := named[role]) is not None}


def _correct_ends(ends: set[int], ids: dict[str, int], attributes: list[int]) -> None:
    """Corrects two model families in which a token that usually ends a generation does not."""
    has = {text for text in (*_EOG, "<|plamo:eos|>") if ids.get(text, -1) in ends}
    calls = "<|call|>" in has or "<|calls|>" in has
    if "<|end|>" in has and calls and ("<|return|>" in has or "<|flush|>" in has):
        ends.discard(ids["<|end|>"])
        attributes[ids["<|end|>"]] = USER_DEFINED
    if "</s>" in has and ("<|tool_response>" in has or "<|plamo:eos|>" in has):
        ends.discard(ids["</s>"])
        attributes[ids["</s>"]] = NORMAL


def _strip_spaces(
    metadata: Mapping[str, object], ids: dict[str, int], attributes: list[int]
) -> None:
    """Marks special tokens that absorb adjacent white space. The GGUF itself does not say so."""
    pre = str(metadata.get("tokenizer.ggml.pre", ""))
    architecture = str(metadata.get("general.architecture", ""))
    # A file without weights is not a model, so its name does not count: llama.cpp uses such a
    # vocabulary only inside another model.
    is_model = metadata.get(TENSOR_COUNT) != 0
    name = str(metadata.get("general.name", "")).lower() if is_model else ""
    masks = ("jina-v2-de", "jina-v2-es", "jina-v2-code", "mmbert")
    if any(part in pre for part in masks) or any(
        part in architecture for part in ("nomic-bert-moe", "jina-bert-v3")
    ):
        _set(ids, attributes, "<mask>", LSTRIP)
    elif "phi-3" in name or "phi3" in name:
        for i, attribute in enumerate(attributes):
            if attribute & (CONTROL | USER_DEFINED | UNKNOWN):
                attributes[i] |= RSTRIP
        _set(ids, attributes, "</s>", RSTRIP)
        for text in ("<unk>", "<s>", "<|endoftext|>"):
            if text in ids:
                attributes[ids[text]] &= ~RSTRIP
    elif "modern-bert" in name:
        _set(ids, attributes, "[MASK]", LSTRIP)


def _set(ids: dict[str, int], attributes: list[int], text: str, attribute: int) -> None:
    if text in ids:
        attributes[ids[text]] |= attribute
