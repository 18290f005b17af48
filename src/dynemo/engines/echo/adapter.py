"""Engines for tests and load generation. They compute nothing.

`out=echo` answers with the tokens of the prompt, `out=echo:text` with the words of the last
message. `-- --slots N` sets how many sequences run at once.
"""

import asyncio
import math
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from dynemo import __version__
from dynemo.engines.options import check_values, read_options, unknown_argument
from dynemo.errors import UsageError
from dynemo.messages.answer import Delta, Finish, FinishReason
from dynemo.messages.records import Capabilities, Load
from dynemo.messages.request import Request
from dynemo.messages.spec import EngineSpec
from dynemo.spelling import quoted

_DEFAULT_CONTEXT = 1 << 20
_DEFAULT_SLOTS = 1024
_OPTIONS = ("slots",)
#: Without a delay, how many tokens one sequence yields before it lets others run. An iteration of
#: the event loop takes longer than a token.
_BURST = 8
_DELAY = "DYNEMO_TOKEN_ECHO_DELAY_MS"
_MOST_DELAY = 60_000

#: Sampling has no effect here, so every value of these fields is accepted.
_TEXT_SETTINGS = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "ignore_eos",
]
SETTINGS = [*_TEXT_SETTINGS, "stop_ids"]


class Echo:
    version = __version__
    device = "cpu"
    capabilities = Capabilities(sampling=SETTINGS)

    def __init__(self, context_length: int, delay: float, slots: int = _DEFAULT_SLOTS) -> None:
        self.context_length = context_length
        self.slots = slots
        self._delay = delay
        self._free = asyncio.Semaphore(slots)
        self._asked = 0

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        """Yields the prompt's ids.

        If another instance has already answered part of it, that part is the end of the prompt.
        Then the answer continues after it.

        It does not end at the prompt's own stop ids, but at those of the client. A stream that is
        lost after a stop id counts as complete, so such an id travels together with the next one.
        """
        done, every = request.continued, request.token_ids
        prompt = every[: len(every) - done]
        ids = prompt[done : done + request.max_tokens]
        own_stops = request.client_stop_ids
        stop = next((at for at, token_id in enumerate(ids, 1) if token_id in own_stops), None)
        ids = ids[:stop]
        held: list[int] = []
        async with self._slot():
            for number, token_id in enumerate(ids[:-1], 1):
                held.append(token_id)
                if token_id not in request.stop_ids:
                    yield Delta(held)
                    held = []
                if self._delay or number % _BURST == 0:
                    await asyncio.sleep(self._delay)
            is_cut = stop is None and done + len(ids) < len(prompt)
            finish = Finish("length" if is_cut else "stop", len(every), len(ids))
            yield Delta([*held, *ids[-1:]], finish=finish)

    async def load(self) -> Load:
        running = min(self._asked, self.slots)
        return Load(running, self._asked - running)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        self._asked += 1
        try:
            async with self._free:
                yield
        finally:
            self._asked -= 1


class EchoText(Echo):
    """Answers with text. Each word counts as a token."""

    capabilities = Capabilities(
        takes="messages", gives="text", shows_control=True, sampling=_TEXT_SETTINGS
    )

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        every = re.findall(r"\s*\S+|\s+$", request.messages[-1]["content"]) or [""]
        rest = every[_continued_words(every, request) :]
        words = rest[: request.max_tokens]
        async with self._slot():
            for number, word in enumerate(words[:-1], 1):
                yield Delta(texts=[word])
                if self._delay or number % _BURST == 0:
                    await asyncio.sleep(self._delay)
            reason: FinishReason = "length" if len(words) < len(rest) else "stop"
            finish = Finish(reason, len(request.token_ids), len(words))
            yield Delta(texts=words[-1:], finish=finish)


def _continued_words(words: list[str], request: Request) -> int:
    """Returns how many words of another instance's answer are at the end of the prompt."""
    if request.continued:
        for count in range(len(words), 0, -1):
            if request.prompt.endswith("".join(words[:count])):
                return count
    return 0


def _delay_seconds(text: str) -> float:
    """Parses a delay in milliseconds. Raises UsageError."""
    try:
        delay = float(text)
    except ValueError:
        delay = math.nan
    if not 0 <= delay <= _MOST_DELAY:  # also refuses NaN
        raise UsageError(
            f"{_DELAY} takes a number of milliseconds from 0 to {_MOST_DELAY}, not {quoted(text)}."
        )
    return delay / 1000


def _slots(spec: EngineSpec) -> int:
    """Reads the engine's one option. Raises UsageError."""
    for name in spec.extra:
        if name not in _OPTIONS:
            raise unknown_argument("echo", name, _OPTIONS)
    given = {**spec.extra, **read_options("echo", spec.options, _OPTIONS)}
    check_values("echo", given, {"slots": int})
    given_slots = given.get("slots")
    slots: int = _DEFAULT_SLOTS if given_slots is None else given_slots
    if slots < 1:
        raise UsageError(f"The echo option slots takes a whole number from 1 up, not {slots}.")
    return slots


@asynccontextmanager
async def open_engine(spec: EngineSpec) -> AsyncIterator[Echo]:
    slots = _slots(spec)
    delay = _delay_seconds(os.environ.get(_DELAY, "10"))
    engine_class = EchoText if spec.argument == "text" else Echo
    yield engine_class(spec.context_length or _DEFAULT_CONTEXT, delay, slots)
