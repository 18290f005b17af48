"""Tries some answers to a compiled guide, in the judging process."""

import time
from contextlib import closing
from random import Random
from typing import Protocol

from dynemo.engines.guides.verdict import GuideRefused
from dynemo.limits import GUIDE_CHARACTERS

_WALKS = 4
_WALK_BYTES = 64
_WALK_SECONDS = 0.02  #: of CPU time, for all of them


class AnyMatcher(Protocol):
    """A compiled guide; see `llguidance.GuideMatcher`."""

    def feed(self, data: bytes) -> int: ...
    def allowed(self) -> bytes: ...
    def forced(self) -> int: ...
    def reset(self) -> None: ...
    def is_complete(self) -> bool: ...
    def problem(self) -> str: ...
    def close(self) -> None: ...


def try_guide(matcher: AnyMatcher) -> None:
    """Raises GuideRefused if a guide forces too long a text, or if an answer that it allows leads
    to a dead end. Closes the matcher.

    At each step an engine tokenizes all that the guide forces from there on. So a long forced text
    would delay every token of every answer.
    """
    with closing(matcher):
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


def _check_end(matcher: AnyMatcher) -> None:
    if not matcher.is_complete():
        raise GuideRefused(matcher.problem() or "an answer could not be completed")


def _check_forced(matcher: AnyMatcher) -> None:
    if matcher.forced() > GUIDE_CHARACTERS:
        raise GuideRefused(f"it may force {GUIDE_CHARACTERS} characters in a row")
