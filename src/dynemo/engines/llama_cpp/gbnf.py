"""Parses a GBNF grammar with llama.cpp's own parser, in the judging process.

xllamacpp's extension module exports the parser, which does not belong to its public interface. The
names are those of C++ functions with their arguments, so a build in which these differ lacks them.
"""

import ctypes
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from dynemo.engines.guides.verdict import GuideRefused, GuideUnsupported
from dynemo.limits import GRAMMAR_ELEMENTS

#: The elements of a rule: a type of `stacks.py`, and a character, a rule or a token.
Rule = list[tuple[int, int]]

_INIT = "_Z23llama_grammar_init_implPK11llama_vocabPKcS3_bPS3_mPKim"
_RULES = "_Z23llama_grammar_get_rulesPK13llama_grammar"
_FREE = "_Z23llama_grammar_free_implP13llama_grammar"
#: A rule that is put before the others, so that the first rule is the start.
_START = "start-of-the-answer"
_ERROR = "error parsing grammar: "
_ERROR_BYTES = 4096
#: A token by its text, like <think>; the parser knows these only with a vocabulary. Texts,
#: characters and comments come first, because "<" has no meaning in them.
_NAMED_TOKEN = re.compile(
    r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*|(<[^\[>\n][^>\n]*>)', re.DOTALL
)

_Vector = ctypes.c_size_t * 3  #: a std::vector: its start, its end, the end of its memory


def parse_grammar(path: str, text: str) -> list[Rule]:
    """Returns the rules of a grammar; the first one refers to `root`.

    Raises GuideRefused, or GuideUnsupported if this build does not export its parser.
    """
    library = _load(path)
    known = _NAMED_TOKEN.sub(lambda match: "<[0]>" if match[1] else match[0], text)
    with _printed() as printed:
        whole, start = f"{_START} ::= root\n{known}".encode(), _START.encode()
        grammar = getattr(library, _INIT)(None, whole, start, False, None, 0, None, 0)
    if not grammar:
        raise GuideRefused(_reason(printed))
    try:
        rules = _rules(getattr(library, _RULES)(grammar).contents)
    finally:
        getattr(library, _FREE)(grammar)
    return rules


@cache
def _load(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    arguments = [pointer, text, text, ctypes.c_bool, pointer, size, pointer, size]
    signatures = {
        _INIT: (pointer, arguments),
        _RULES: (ctypes.POINTER(_Vector), [pointer]),
        _FREE: (None, [pointer]),
    }
    for name, (result, types) in signatures.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise GuideUnsupported(
                "This build of llama.cpp cannot check grammars. Install another version of "
                "xllamacpp."
            ) from None
        function.restype, function.argtypes = result, types
    return library


def _rules(outer: ctypes.Array[ctypes.c_size_t]) -> list[Rule]:
    start, end, _ = outer
    vectors = [_Vector.from_address(at) for at in range(start, end, ctypes.sizeof(_Vector))]
    if sum(last - first for first, last, _ in vectors) > GRAMMAR_ELEMENTS * 8:
        raise GuideRefused(f"it may have {GRAMMAR_ELEMENTS} elements, repeated ones too")
    rules: list[Rule] = []
    for first, last, _ in vectors:
        numbers = (ctypes.c_uint32 * ((last - first) // 4)).from_address(first)
        rules.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return rules


@contextmanager
def _printed() -> Iterator[list[str]]:
    """Gives a list with what the library prints to standard error, once the context has ended."""
    lines: list[str] = []
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines += file.read(_ERROR_BYTES).decode(errors="replace").splitlines()


def _reason(printed: list[str]) -> str:
    for line in printed:
        if _ERROR in line:
            return line.split(_ERROR, 1)[1]
    return printed[0] if printed else "llama.cpp refuses it"
