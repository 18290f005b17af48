"""Judges guides with the llguidance that an engine's environment has as a package.

vLLM and SGLang follow every guide with it. This is the module of guides of both; see `child.py`.
"""

from typing import Any

from msgspec import DecodeError, Struct, json

from dynemo.engines.guides.lark import as_lark, compact_schema
from dynemo.engines.guides.llguidance import reason_of
from dynemo.engines.guides.probe import try_guide
from dynemo.engines.guides.verdict import GuideRefused
from dynemo.foreign import decode_json
from dynemo.spelling import quoted

_END = 255  #: the id of the token that ends an answer; the lower ids are the bytes


class _Structure(Struct):
    begin: str
    end: str
    schema: dict[str, Any] | str = {}


class _Tag(Struct):
    structures: list[_Structure]
    triggers: list[str]


class _Bytes:
    """A vocabulary of bytes, in the form that llguidance takes."""

    eos_token_id = _END
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(_END)), b"\xff<end>")
    special_token_ids = (_END,)
    is_tokenizer_wrapper = True

    def __init__(self) -> None:
        self.longest = 0  #: bytes of the longest text that was tokenized

    def __call__(self, text: bytes | str) -> list[int]:
        data = text.encode() if isinstance(text, str) else text
        self.longest = max(self.longest, len(data))
        return list(data)


class WheelMatcher:
    """Matches one text against a grammar, as `GuideMatcher` does."""

    def __init__(self, grammar: str) -> None:
        """Raises GuideRefused."""
        import llguidance  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self._bytes = _Bytes()
        vocabulary: Any = self._bytes
        tokenizer = llguidance.LLTokenizer(vocabulary)
        self._matcher = llguidance.LLMatcher(
            tokenizer, llguidance.LLMatcher.grammar_from_lark(grammar), log_level=0
        )
        self._bytes.longest = 0
        self.allowed()
        if problem := self.problem():
            raise GuideRefused(problem)

    def feed(self, data: bytes) -> int:
        count: int = self._matcher.try_consume_tokens(list(data))
        return count

    def allowed(self) -> bytes:
        if self._matcher.is_stopped():
            return b""
        mask = self._matcher.compute_bitmask()
        return bytes(byte for byte in range(_END) if mask[byte // 8] >> byte % 8 & 1)

    def forced(self) -> int:
        self._matcher.compute_ff_tokens()
        return self._bytes.longest

    def reset(self) -> None:
        self._matcher.reset()

    def is_complete(self) -> bool:
        return bool(self._matcher.is_accepting())

    def problem(self) -> str:
        return reason_of(self._matcher.get_error()) if self._matcher.is_error() else ""

    def close(self) -> None:
        """Does nothing: the matcher has no other owner."""


def load() -> None:
    import llguidance  # noqa: F401


def judge(kind: str, text: str) -> str:
    """Raises GuideRefused."""
    lark = as_lark("lark", _converted(kind, text))
    try_guide(WheelMatcher(lark))
    return lark


def _converted(kind: str, text: str) -> str:
    from llguidance import gbnf_to_lark

    match kind:
        case "grammar":
            try:
                return str(gbnf_to_lark.gbnf_to_lark(text))
            except Exception as error:  # whatever its hand-written parser meets
                raise GuideRefused(f"it is not valid GBNF ({error})") from None
        case "structural_tag":
            return _of_tag(text)
    return as_lark(kind, text)


def _of_tag(text: str) -> str:
    from llguidance import StructTag

    try:
        tag = decode_json(text, _Tag)
    except DecodeError as error:
        raise GuideRefused(f"it must have structures and triggers ({error})") from None
    if not tag.structures:
        raise GuideRefused("it has no structure")
    tags = []
    for one in tag.structures:
        trigger = next((t for t in tag.triggers if t and one.begin.startswith(t)), None)
        if trigger is None:
            raise GuideRefused(f"no trigger begins the structure {quoted(one.begin)}")
        schema = one.schema if isinstance(one.schema, str) else json.encode(one.schema).decode()
        grammar = compact_schema(schema)
        tags.append(StructTag(trigger=trigger, begin=one.begin, grammar=grammar, end=one.end))
    # Marks are texts here: a token that spells one is a special token only to its tokenizer.
    return str(StructTag.to_grammar(tags, assume_special=False))
