"""The grammar of a guide for llama.cpp, and the check that an answer follows it.

llama.cpp refuses an invalid GBNF grammar. With a JSON schema its llguidance may refuse the schema,
or give up within an answer. Then llama.cpp only logs an error and continues without the schema. So
the same build of llguidance checks the schema before llama.cpp gets it. Then it checks each text of
the answer before the text is passed on.
"""

from dynemo.engines.json_schema import GUIDE_FIELD, check_size, refused
from dynemo.errors import EngineError, RequestError, UnsupportedField
from dynemo.messages.answer import Delta
from dynemo.messages.request import Guide

#: The prefix that marks such a grammar for llama.cpp. Without it the grammar is GBNF.
_LLGUIDANCE = "%llguidance"
#: Bytes of JSON after (first) and before (second) which white space has no meaning. b"" is the
#: start.
_BEFORE = (b"", b"{", b"[", b",", b":")
_AFTER = (b"}", b"]", b",", b":")


class Grammar:
    """A grammar that llama.cpp itself checks, or no grammar if `text` is empty.

    Call `close` at the end.
    """

    def __init__(self, text: str = "") -> None:
        self.text = text

    def check(self, delta: Delta) -> None:
        """Checks the next delta of the answer.

        If the answer does not follow the grammar, it raises RequestError for the first delta, and
        EngineError for a later one.
        """

    def close(self) -> None:
        """Frees the resources of the check."""


class SchemaGrammar(Grammar):
    """A grammar for llguidance. An answer may violate it without an error from llama.cpp."""

    def __init__(self, text: str) -> None:
        """Raises RequestError if the schema cannot be followed."""
        from dynemo.engines.llama_cpp.llguidance import GuideMatcher, NotExported, SchemaRefused

        super().__init__(text)
        self._count = 0
        self._last = b""  # the last byte that the matcher consumed
        try:
            self._matcher = GuideMatcher(text)
        except SchemaRefused as error:
            raise refused(str(error)) from None
        except NotExported:
            raise UnsupportedField(
                "This build of llama.cpp cannot check JSON schemas. Install another version of "
                "xllamacpp.",
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
                f"llama.cpp stopped following the JSON schema after {self._count} tokens "
                f"({reason}). Use a simpler schema."
            )
        self._count += len(delta.texts)

    def close(self) -> None:
        self._matcher.close()

    def _follows(self, data: bytes) -> bool:
        """Whether `data` continues the answer in line with the grammar.

        If the vocabulary puts a space before a text, llama.cpp hides that space from llguidance.
        Such a space is harmless between two parts of the JSON.
        """
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
    """Returns the grammar for a guide. Raises RequestError if llama.cpp cannot follow it."""
    if guide is None:
        return Grammar()
    if guide.kind == "grammar":
        if guide.text.startswith(_LLGUIDANCE):
            raise RequestError("A grammar must be written in GBNF.", param=GUIDE_FIELD)
        return Grammar(guide.text)
    check_size(guide.text)
    from xllamacpp import json_schema_to_grammar

    try:
        text = json_schema_to_grammar(guide.text)
    except ValueError as error:
        raise refused(str(error).removeprefix("json_schema_to_grammar: ").rstrip(".")) from None
    # A build without llguidance converts a schema to GBNF.
    return SchemaGrammar(text) if text.startswith(_LLGUIDANCE) else Grammar(text)
