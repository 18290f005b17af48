"""Compiles a guide with an engine's llguidance and tries some answers, in the judging process."""

import ctypes
import time
from contextlib import closing
from random import Random

from dynemo.engines.guides.llguidance import GuideMatcher
from dynemo.engines.guides.verdict import GuideRefused
from dynemo.limits import GUIDE_CHARACTERS

_WALKS = 4
_WALK_BYTES = 64
_WALK_SECONDS = 0.02  #: of CPU time, for all of them


def compile_guide(library: ctypes.CDLL, kind: str, grammar: str) -> None:
    """Raises GuideRefused if llguidance refuses the guide, or if it forces too long a text.

    It also refuses a guide if an answer that it allows leads to a dead end.

    At each step an engine tokenizes all that the guide forces from there on. So a long forced text
    would delay every token of every answer.
    """
    with closing(GuideMatcher(library, kind, grammar, is_forcing=True)) as matcher:
        _check_forced(matcher)
        choice = Random(0)
        end = time.process_time() + _WALK_SECONDS
        for _ in range(_WALKS):
            for _ in range(_WALK_BYTES):
                allowed = matcher.allowed()
                if not allowed:
                    _check_end(matcher)
                if not allowed or time.process_time() > end:
                    break
                # A quote ends a string, so that the walk continues behind it.
                is_quote = b'"' in allowed and choice.random() < 0.5
                matcher.feed(b'"' if is_quote else bytes([choice.choice(allowed)]))
                _check_forced(matcher)
            matcher.reset()


def _check_end(matcher: GuideMatcher) -> None:
    if not matcher.is_complete():
        raise GuideRefused(matcher.problem() or "an answer could not be completed")


def _check_forced(matcher: GuideMatcher) -> None:
    if matcher.forced() > GUIDE_CHARACTERS:
        raise GuideRefused(f"it may force {GUIDE_CHARACTERS} characters in a row")
