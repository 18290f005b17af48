"""llama.cpp's table of `tokenizer.ggml.pre` names, and how each splits text into words.

It comes from `llama_vocab::impl::load` and `llm_tokenizer_bpe` in llama.cpp's `llama-vocab.cpp`,
and from the hand-written splitters in its `unicode.cpp`. Each name has a list of patterns; each
pattern splits the words that the previous one left. `split.py` describes the pattern syntax. Two
differences from the regexes of the models' authors are kept, because llama.cpp has them:

- a letter outside ASCII counts as both upper case and lower case;
- `afmoe_digits` cuts after a group of digits, not before the first one.
"""

from dataclasses import dataclass

_CONTRACTION = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_OTHER = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_OTHER_OR_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTION}|{_WORD}|\p{{N}}{{1,3}}|{_OTHER}|{_SPACES}"
_QWEN2 = rf"{_CONTRACTION}|{_WORD}|\p{{N}}|{_OTHER}|{_SPACES}"
_QWEN35 = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)


def _cased(upper: str, lower: str, digits: str, contraction: str = "") -> str:
    """Returns a pattern that starts a new word at a capital: `camelCase` is two words."""
    start = r"[^\r\n\p{L}\p{N}]?"
    return (
        f"{start}{upper}*{lower}+{contraction}|{start}{upper}+{lower}*{contraction}"
        f"|{digits}|{_OTHER_OR_SLASH}|{_SPACES}"
    )


_MAYBE_CONTRACTION = f"(?:{_CONTRACTION})?"
_ANY_LETTER = r"[\p{L}\p{M}]"
_TEKKEN = _cased(r"[\p{Lu}]", r"[\p{Ll}]", r"\p{N}")
_GPT4O = _cased(r"[\p{Lu}]", r"[\p{Ll}]", r"\p{N}{1,3}", _MAYBE_CONTRACTION)
_GRANITE = _cased(r"[\p{Lu}\p{M}]", r"[\p{Ll}\p{M}]", r"\p{N}{1,3}", _MAYBE_CONTRACTION)
_TINY_AYA = _cased(_ANY_LETTER, _ANY_LETTER, r"\p{N}{1,3}", _MAYBE_CONTRACTION)
_YOUTU = _cased(_ANY_LETTER, _ANY_LETTER, r"\p{N}", _MAYBE_CONTRACTION)

_ASCII_PUNCTUATION = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
_DEEPSEEK3 = (
    rf"{_ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
)
_SPARK = (
    rf"{_ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    r"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"
)
_HAN_KANA = "[一-龥぀-ゟ゠-ヿ]+"
_HAN_HANGUL = "[一-龥ࠀ-一가-퟿]+"
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_LINES = r"[^\n]+|[\n]+"

_HAN = (
    "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002ebef"
    "\uf900-\ufaff\U0002f800-\U0002fa1f"
)
_KIMI = (
    rf"[{_HAN}]+|[^\r\n\p{{L}}\p{{N}}]?(?:(?![{_HAN}])\p{{L}})+{_MAYBE_CONTRACTION}"
    rf"|\p{{N}}{{1,3}}|{_OTHER}|{_SPACES}"
)
# Only this splitter treats U+017F as an s when it ignores case.
_LONG_S = "\u017f"
_JOINERS = "\u200c\u200d"
_K2_HORIZON = (
    rf"{_CONTRACTION}|'[{_LONG_S}]|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}{_JOINERS}]+"
    rf"|\p{{N}}{{1,3}}|{_OTHER}|{_SPACES}"
)
# The third range should start at U+F900, but llama.cpp has its look-alike U+8C48.
_ASIAN_SCRIPTS = (
    "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf"
    "\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_DEEPSEEK_LETTERS = (
    "[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅ"
    "Ὀ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭ"
    "Ꚁ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]"
)

#: These patterns are functions in `split.py`, because no regex does the same in linear time.
AFMOE_DIGITS = "afmoe_digits"
SUPERBPE_DIGITS = "superbpe_digits"

# Patterns by llama.cpp's enumerator name in lower case.
_PATTERNS: dict[str, tuple[str, ...]] = {
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    "llama3": (_LLAMA3,),
    "jais2": (
        rf"{_CONTRACTION}|{_WORD}|\p{{N}}{{1,3}}|{_OTHER}|\s*[\r\n]+"
        r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)"
        r"|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
    ),
    "deepseek_llm": (
        r"[\r\n]",
        rf"\s?{_DEEPSEEK_LETTERS}+",
        r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
        # llama.cpp's `\s+$`, without a try at each space of a run.
        r"(?<!\s)\s+$",
        _HAN_HANGUL,
        r"\p{N}+",
    ),
    "deepseek_coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN_HANGUL, r"\p{N}"),
    "deepseek3": (r"\p{N}{1,3}", _HAN_KANA, _DEEPSEEK3),
    "spark": (r"\p{N}{1,3}", _HAN_KANA, _SPARK, r"\p{N}"),
    "youtu": (rf"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|{_HAN_KANA}", _YOUTU),
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"),
    "starcoder": (r"\p{N}", _GPT2),
    "gpt2": (_GPT2,),
    "qwen2": (_QWEN2,),
    "qwen35": (_QWEN35,),
    "bloom": (_BLOOM,),
    "viking": (_BLOOM, r"\p{N}"),
    "tekken": (_TEKKEN,),
    "chameleon": (
        "<sentinel:[0-9]+>",
        "IMGIMG[A-I]{1,4}Z",
        r"[\t\n]|    |  ",
        r"\p{N}",
        r"[\p{P}!-/:-@\[-`{-~]",
        _GPT2,
    ),
    "gpt4o": (_GPT4O,),
    "granite": (_GRANITE,),
    "tiny_aya": (AFMOE_DIGITS, _TINY_AYA),
    "kimi": (_KIMI,),
    "superbpe": (r"\p{N}+", SUPERBPE_DIGITS),
    "bailing": (
        rf"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|{_WORD}|\p{{N}}|{_OTHER}"
        r"|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
    "seed": (rf"{_CONTRACTION}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}",),
    "ufakzeka": (rf"{_WORD}|\p{{N}}|{_OTHER}|{_SPACES}",),
    "afmoe": (
        AFMOE_DIGITS,
        _ASIAN_SCRIPTS,
        _DEEPSEEK3,
    ),
    "laguna": (_LINES, _QWEN2),
    "exaone_moe": (
        rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}\p{{M}}*(?: ?\p{{L}}\p{{M}}*)*|\p{{N}}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
    "lines": (_LINES,),
    "minicpm5": (
        r"\p{N}{1,3}",
        rf"{_CONTRACTION}|{_WORD}|\p{{N}}+|{_OTHER}|{_SPACES}",
    ),
    "whitespace": (r"\S+",),
    "k2_horizon": (_K2_HORIZON,),
}


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """The rules of a `tokenizer.ggml.pre` name.

    `is_byte_level`: words are spelled in GPT-2's alphabet of bytes. Otherwise they are plain text
    with U+2581 for spaces.
    `ignores_merges`: a word that equals a token becomes that token, whatever the merges are.
    `adds_bos` applies if the metadata is silent. `always_adds_bos` overrides the metadata.
    """

    patterns: tuple[str, ...]
    ignores_merges: bool = False
    adds_bos: bool = False
    always_adds_bos: bool = False
    is_byte_level: bool = True
    escapes_spaces: bool = False
    keeps_newline_runs: bool = False
    splits_at_spaces: bool = False


def _named(pre_tokenizer: PreTokenizer, names: str) -> dict[str, PreTokenizer]:
    return dict.fromkeys(names.split(), pre_tokenizer)


def _plain(patterns: str, names: str) -> dict[str, PreTokenizer]:
    return _named(PreTokenizer(_PATTERNS[patterns]), names)


_GEMMA4 = PreTokenizer(
    _PATTERNS["lines"],
    always_adds_bos=True,
    is_byte_level=False,
    escapes_spaces=True,
    keeps_newline_runs=True,
)

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    **_plain("default", "default"),
    **_named(
        PreTokenizer(_PATTERNS["llama3"], ignores_merges=True, adds_bos=True),
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
    ),
    **_plain("llama3", "dbrx smaug-bpe chatglm-bpe"),
    **_named(PreTokenizer(_PATTERNS["llama3"], ignores_merges=True), "glm4 glm5"),
    **_plain("jais2", "jais-2"),
    **_plain("deepseek_llm", "deepseek-llm"),
    **_plain("deepseek_coder", "deepseek-coder"),
    **_plain("deepseek3", "deepseek-v3 hunyuan-dense hy_v4 joyai-llm"),
    **_plain("spark", "spark2_5"),
    "youtu": PreTokenizer(_PATTERNS["youtu"], ignores_merges=True),
    **_plain("falcon", "falcon"),
    **_plain("starcoder", "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2"),
    **_plain(
        "gpt2",
        "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert "
        "jina-v1-en jina-v2-code roberta-bpe mpt olmo jais trillion granite-docling exaone4",
    ),
    **_plain(
        "qwen2",
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
    ),
    **_plain("qwen35", "qwen35"),
    **_plain("bloom", "poro-chat bloom gpt3-finnish"),
    **_plain("viking", "viking"),
    "tekken": PreTokenizer(_PATTERNS["tekken"], ignores_merges=True, adds_bos=True),
    "chameleon": PreTokenizer(_PATTERNS["chameleon"], adds_bos=True),
    **_plain("gpt4o", "gpt-4o llama4 kanana2 talkie minimax-m2"),
    "granite-embed-multi-97m": PreTokenizer(_PATTERNS["granite"], ignores_merges=True),
    **_plain("tiny_aya", "tiny_aya cohere2moe"),
    **_plain("kimi", "kimi-k2"),
    **_plain("superbpe", "superbpe"),
    **_plain("bailing", "bailingmoe bailingmoe2 llada-moe"),
    **_plain("seed", "seed-coder"),
    **_plain("ufakzeka", "ufakzeka"),
    **_plain("afmoe", "afmoe"),
    **_plain("laguna", "laguna"),
    **_plain("exaone_moe", "exaone-moe"),
    "gemma4": _GEMMA4,
    "granite-embed-multi-311m": _GEMMA4,
    "sarvam-moe": PreTokenizer(_PATTERNS["lines"], is_byte_level=False, escapes_spaces=True),
    "mmbert": PreTokenizer(
        _PATTERNS["lines"],
        is_byte_level=False,
        escapes_spaces=True,
        keeps_newline_runs=True,
        splits_at_spaces=True,
    ),
    "minicpm5": PreTokenizer(_PATTERNS["minicpm5"], ignores_merges=True),
    "whitespace": PreTokenizer(_PATTERNS["whitespace"], is_byte_level=False),
    **_plain("k2_horizon", "k2-horizon"),
}
