"""`out=echo`: answers with the prompt's own tokens. For tests and load; it computes nothing."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from dynemo import __version__
from dynemo.errors import UsageError
from dynemo.messages import Capabilities, Delta, EngineSpec, Finish, Load, Request, Sampling

_DEFAULT_CONTEXT = 1 << 20
_DELAY = "DYNEMO_TOKEN_ECHO_DELAY_MS"


class Echo:
    version = __version__
    device = "cpu"
    slots = 1024
    #: Sampling has no meaning for it, so that every value of it is honoured.
    capabilities = Capabilities(sampling=[*Sampling.__struct_fields__, "ignore_eos"])

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
            for token_id in ids[:-1]:
                yield Delta([token_id])
                await asyncio.sleep(self._delay)
            reason = "length" if done + len(ids) < len(prompt) else "stop"
            finish = Finish(reason, len(every), len(ids))  # type: ignore[arg-type]
            yield Delta(ids[-1:], finish=finish)
        finally:
            self._running -= 1

    async def load(self) -> Load:
        return Load(running=self._running)


@asynccontextmanager
async def open_engine(spec: EngineSpec) -> AsyncIterator[Echo]:
    if spec.options:
        raise UsageError(f"echo has no options of its own, but got {spec.options[0]!r} after `--`.")
    word = os.environ.get(_DELAY, "10")
    try:
        delay = float(word) / 1000
    except ValueError:
        raise UsageError(f"{_DELAY} is a number of milliseconds, not {word!r}.") from None
    yield Echo(spec.context_length or _DEFAULT_CONTEXT, delay)
