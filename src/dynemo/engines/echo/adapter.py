"""`out=echo` answers with the prompt's own tokens, `out=echo:text` with the last message, word by
word. For tests and load; it computes nothing."""

import asyncio
import math
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from dynemo import __version__
from dynemo.engines.options import refuse_options
from dynemo.errors import UsageError
from dynemo.messages.answer import Delta, Finish, FinishReason
from dynemo.messages.records import Capabilities, Load
from dynemo.messages.request import Request
from dynemo.messages.spec import EngineSpec

_DEFAULT_CONTEXT = 1 << 20
#: Without a delay, so many tokens before another sequence has its turn: a turn of the event loop
#: takes longer than a token.
_BURST = 8
_DELAY = "DYNEMO_TOKEN_ECHO_DELAY_MS"
_MOST_DELAY = 60_000

#: Sampling has no meaning for it, so that it honours every value of these.
SETTINGS = [
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


class Echo:
    version = __version__
    device = "cpu"
    slots = 1024
    capabilities = Capabilities(sampling=SETTINGS)

    def __init__(self, context_length: int, delay: float) -> None:
        self.context_length = context_length
        self._delay = delay
        self._running = 0

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        """What another instance has answered already stands at the prompt's end; the rest of the
        prompt without it is what is left to say."""
        done, every = request.continued, request.token_ids
        prompt = every[: len(every) - done]
        ids = prompt[done : done + request.max_tokens]
        self._running += 1
        try:
            for number, token_id in enumerate(ids[:-1], 1):
                yield Delta([token_id])
                if self._delay or number % _BURST == 0:
                    await asyncio.sleep(self._delay)
            reason: FinishReason = "length" if done + len(ids) < len(prompt) else "stop"
            finish = Finish(reason, len(every), len(ids))
            yield Delta(ids[-1:], finish=finish)
        finally:
            self._running -= 1

    async def load(self) -> Load:
        return Load(running=self._running)


class EchoText(Echo):
    """Gives text: a word counts as a token."""

    capabilities = Capabilities(takes="messages", gives="text", sampling=SETTINGS)

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        every = re.findall(r"\s*\S+|\s+$", request.messages[-1]["content"]) or [""]
        rest = every[_said(every, request) :]
        words = rest[: request.max_tokens]
        self._running += 1
        try:
            for number, word in enumerate(words[:-1], 1):
                yield Delta(texts=[word])
                if self._delay or number % _BURST == 0:
                    await asyncio.sleep(self._delay)
            reason: FinishReason = "length" if len(words) < len(rest) else "stop"
            finish = Finish(reason, len(request.token_ids), len(words))
            yield Delta(texts=words[-1:], finish=finish)
        finally:
            self._running -= 1


def _said(words: list[str], request: Request) -> int:
    """How many of the words another instance has said, at the end of the prompt."""
    if request.continued:
        for count in range(len(words), 0, -1):
            if request.prompt.endswith("".join(words[:count])):
                return count
    return 0


def _delay_seconds(word: str) -> float:
    """Raises UsageError."""
    try:
        delay = float(word)
    except ValueError:
        delay = math.nan
    if not 0 <= delay <= _MOST_DELAY:  # and NaN
        raise UsageError(
            f"{_DELAY} takes a number of milliseconds from 0 to {_MOST_DELAY}, not {word!r}."
        )
    return delay / 1000


@asynccontextmanager
async def open_engine(spec: EngineSpec) -> AsyncIterator[Echo]:
    refuse_options(spec, "echo")
    delay = _delay_seconds(os.environ.get(_DELAY, "10"))
    kind = EchoText if spec.argument == "text" else Echo
    yield kind(spec.context_length or _DEFAULT_CONTEXT, delay)
