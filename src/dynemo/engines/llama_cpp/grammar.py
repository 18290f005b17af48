"""The grammar of a guide for llama.cpp, and the check that an answer follows it.

llama.cpp follows every guide but GBNF with llguidance, which may give up within an answer. Then
llama.cpp only logs an error and continues without the guide. So the same build of llguidance checks
each text of the answer before the text is passed on.
"""

import asyncio

from dynemo.engines.guides.lark import LLGUIDANCE
from dynemo.engines.guides.llguidance import GuideMatcher, load_llguidance
from dynemo.engines.guides.verdict import GuideRefused, refused
from dynemo.engines.llama_cpp.guide import load
from dynemo.errors import EngineError
from dynemo.messages.answer import Delta

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


class LarkGrammar(Grammar):
    """A grammar for llguidance. An answer may violate it without an error from llama.cpp."""

    def __init__(self, text: str) -> None:
        """Raises RequestError if the grammar cannot be followed."""
        super().__init__(text)
        self._count = 0
        self._last = b""  # the last byte that the matcher consumed
        try:
            self._matcher = GuideMatcher(load_llguidance(load()), "lark", text)
        except GuideRefused as error:
            raise refused(str(error)) from None

    def check(self, delta: Delta) -> None:
        follows = self._follows("".join(delta.texts).encode())
        if follows and delta.finish is not None and delta.finish.reason == "stop":
            follows = self._matcher.is_complete()
        if not follows:
            reason = self._matcher.problem() or "the answer does not fit"
            if self._count == 0:
                raise refused(f"llama.cpp does not follow it ({reason})")
            raise EngineError(
                f"llama.cpp stopped following the guide after {self._count} tokens ({reason}). Use "
                "a simpler one."
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


async def open_grammar(text: str) -> Grammar:
    """Returns the grammar of a text that has been judged (`guide.py`), or of "".

    Raises RequestError if it cannot be followed.
    """
    if not text.startswith(LLGUIDANCE):
        return Grammar(text)
    return await asyncio.to_thread(LarkGrammar, text)  # it compiles the grammar, without the GIL
