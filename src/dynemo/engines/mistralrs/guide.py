"""Judges guides for mistral.rs; see `engines/guides/child.py`."""

import ctypes
from functools import cache

from dynemo.engines.guides.lark import as_lark
from dynemo.engines.guides.llguidance import GuideMatcher, NotExported, load_llguidance
from dynemo.engines.guides.probe import try_guide


@cache
def load() -> ctypes.CDLL | None:
    """Returns the llguidance of mistral.rs, or None if this build does not export it."""
    import mistralrs.mistralrs  # type: ignore[import-not-found,import-untyped,unused-ignore]

    try:
        return load_llguidance(mistralrs.mistralrs.__file__)
    except NotExported:
        return None


def judge(kind: str, text: str) -> str:
    """Raises GuideRefused. Without llguidance the table of limits decides alone."""
    grammar = as_lark(kind, text)
    library = load()
    if library is not None:
        try_guide(GuideMatcher(library, "lark", grammar, is_forcing=True))
    return grammar
