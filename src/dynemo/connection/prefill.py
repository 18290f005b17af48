"""How long an engine may take for its prompts, learned from its own answers.

The unit is the byte of an encoded request, so that nobody decodes a request to count its tokens.
"""

from collections import deque

from dynemo.messages.answer import Finish

#: One part of a prompt, for an engine that tells its progress: 2,048 tokens of about 8 bytes.
PART_BYTES = 16 * 1024
#: Bytes a second of an engine that has answered nothing yet: about 100 tokens.
_GUESS = 800.0
#: The prompt of a shorter request takes no time that matters, and says nothing about the pace.
_SHORT_BYTES = 2048
_REMEMBERED = 8


class PrefillPace:
    """The pace of one engine, over its restarts."""

    def __init__(self) -> None:
        self._paces: deque[float] = deque(maxlen=_REMEMBERED)
        self._answered: dict[int, float] = {}  # bytes a second of open streams

    def answered(self, stream: int, size: int, seconds: float) -> None:
        """A stream whose request has this size got its first token after so many seconds."""
        if size >= _SHORT_BYTES:
            self._answered[stream] = size / max(seconds, 1e-3)

    def learn(self, stream: int, finish: Finish) -> None:
        """A stream has ended. What the engine had in its cache does not count."""
        pace = self._answered.get(stream)
        if pace is not None and finish.prompt_tokens:
            computed = 1 - finish.cached_tokens / finish.prompt_tokens
            if computed > 0.5:
                self._paces.append(pace * computed)

    def forget(self, stream: int) -> None:
        self._answered.pop(stream, None)

    def expected(self, size: int) -> float:
        """Seconds for requests of this size together: at the lowest pace of the last answers."""
        return max(0, size - _SHORT_BYTES) / min(self._paces, default=_GUESS)
