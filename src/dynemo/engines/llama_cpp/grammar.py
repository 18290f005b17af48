"""The grammar that llama.cpp gets for a guide, and whether its answer follows it.

llama.cpp refuses a GBNF grammar that is wrong. With a JSON schema it only logs an error, and then
answers without the schema, if its llguidance refuses the schema or gives up within an answer. So
the same build of llguidance judges the schema before llama.cpp gets it, and then each text of the
answer before it is passed on.
"""

from dynemo.engines.json_schema import GUIDE_FIELD, check_size, refused
from dynemo.errors import EngineError, RequestError, UnsupportedField
from dynemo.messages.answer import Delta
from dynemo.messages.request import Guide

_LLGUIDANCE = "%llguidance"  #: how llama.cpp tells such a grammar from GBNF
#: Bytes after and before which white space means nothing in JSON; before the first byte as well.
_BEFORE = (b"", b"{", b"[", b",", b":")
_AFTER = (b"}", b"]", b",", b":")


class Grammar:
    """A grammar that llama.cpp checks, or none if `text` is empty. `close` it."""

    def __init__(self, text: str = "") -> None:
        self.text = text

    def check(self, delta: Delta) -> None:
        """Takes the deltas of one answer in their order. Raises RequestError for the first one,
        EngineError for a later one, if the answer does not follow the grammar."""

    def close(self) -> None:
        """Frees what the check holds."""


class SchemaGrammar(Grammar):
    """A grammar of llguidance's: one that an answer may leave without an error of llama.cpp's."""

    def __init__(self, text: str) -> None:
        """Raises RequestError."""
        from dynemo.engines.llama_cpp.llguidance import GuideMatcher, NotExported, SchemaRefused

        super().__init__(text)
        self._count = 0
        self._last = b""  # byte that the matcher has taken
        try:
            self._matcher = GuideMatcher(text)
        except SchemaRefused as error:
            raise refused(str(error)) from None
        except NotExported:
            raise UnsupportedField(
                "This build of llama.cpp does not let a JSON schema be checked; "
                "install another version of xllamacpp for it.",
                param=GUIDE_FIELD,
            ) from None

    def check(self, delta: Delta) -> None:
        follows = self._follows("".join(delta.texts).encode())
        if follows and delta.finish is not None and delta.finish.reason == "stop":
            follows = self._matcher.is_complete()
        if not follows:
            reason = self._matcher.problem() or "the answer does not fit"
            if self._count == 0:
                raise refused(f"llama.cpp does not follow it ({reason})")
            raise EngineError(
                f"llama.cpp stopped following the JSON schema after {self._count} "
                f"tokens ({reason}); use a simpler schema."
            )
        self._count += len(delta.texts)

    def close(self) -> None:
        self._matcher.close()

    def _follows(self, data: bytes) -> bool:
        """llama.cpp hides the space before a token from llguidance, if the vocabulary is one that
        puts a space before a text. Such a space is harmless between two parts of the JSON."""
        while data:
            count = self._matcher.feed(data)
            self._last = data[:count][-1:] or self._last
            if count < len(data) and not (
                data[count : count + 1] == b" "
                and (self._last in _BEFORE or data[count + 1 : count + 2] in _AFTER)
            ):
                return False
            data = data[count + 1 :]
        return True


def open_grammar(guide: Guide | None) -> Grammar:
    """Raises RequestError for a guide that llama.cpp cannot follow."""
    if guide is None:
        return Grammar()
    if guide.kind == "grammar":
        if guide.text.startswith(_LLGUIDANCE):
            raise RequestError("A grammar is written in GBNF.", param=GUIDE_FIELD)
        return Grammar(guide.text)
    check_size(guide.text)
    from xllamacpp import json_schema_to_grammar

    try:
        text = json_schema_to_grammar(guide.text)
    except ValueError as error:
        raise refused(str(error).removeprefix("json_schema_to_grammar: ").rstrip(".")) from None
    # A build without llguidance makes GBNF of a schema.
    return SchemaGrammar(text) if text.startswith(_LLGUIDANCE) else Grammar(text)
