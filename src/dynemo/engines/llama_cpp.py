"""`out=llama_cpp`: GGUF models through llama.cpp's own server, from the `xllamacpp` wheel.

The server listens on a Unix socket in the host's private folder and is fed token ids on
`/completion`; it batches, caches prompts and samples. Closing the connection aborts a sequence:
the server notices at its next token, and during a prompt at the end of the chunk.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any

from msgspec import Struct, json

from dynemo.engines.llama_cpp_params import common_params
from dynemo.engines.llama_cpp_wire import connect, get, post_stream
from dynemo.errors import EngineError, EngineNotInstalled
from dynemo.messages import Capabilities, Delta, EngineSpec, Finish, Load, Request

_CAPABILITIES = Capabilities(
    sampling=[
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
)

_ENVIRONMENT = {
    # A crash ends at once, not after a debugger has been looked for.
    "GGML_NO_BACKTRACE": "1",
    # Its threads meet after every operation. Spinning there, they take the cores from whatever else
    # runs, each other included: 100 M parameters on two cores fell from 150 to 1 token/s when one
    # more process wanted a core, and to 110 where they sleep instead.
    "OMP_WAIT_POLICY": "PASSIVE",
}

#: Penalties look at the whole sequence, as far as the server can keep it.
_WHOLE_SEQUENCE = 1 << 20
_FINAL_FIELDS = ["stop", "tokens", "stop_type", "tokens_predicted", "timings/cache_n"]


class _Event(Struct, rename={"cached": "timings/cache_n"}):
    """One server-sent event of `/completion`; the last one has `stop`."""

    tokens: list[int] = []
    stop: bool = False
    stop_type: str = ""
    tokens_predicted: int = 0
    cached: int = 0
    error: Any = None


class _Slot(Struct):
    is_processing: bool


_decode_event = json.Decoder(_Event).decode
_decode_slots = json.Decoder(list[_Slot]).decode


class LlamaCpp:
    device = "cpu"
    capabilities = _CAPABILITIES

    def __init__(self, path: str, version: str, context_length: int, slots: int) -> None:
        self.version = version
        self.context_length = context_length
        self.slots = slots
        self._path = path
        # A few more than the slots, so that a slot that falls free finds its next prompt waiting
        # in the server; the rest waits here, where it can be cancelled at once.
        self._admitted = asyncio.Semaphore(slots + 2)
        self._waiting = 0

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        self._waiting += 1
        try:
            await self._admitted.acquire()
        finally:
            self._waiting -= 1
        try:
            reader, writer = await connect(self._path)
            try:
                events = post_stream(reader, writer, "/completion", json.encode(_body(request)))
                async for delta in _deltas(events, request):
                    yield delta
            finally:
                writer.transport.abort()
        finally:
            self._admitted.release()

    async def load(self) -> Load:
        slots = _decode_slots(await get(self._path, "/slots"))
        running = sum(slot.is_processing for slot in slots)
        return Load(running=running, waiting=self._waiting, kv_use=running / len(slots))


async def _deltas(events: AsyncIterator[bytes], request: Request) -> AsyncIterator[Delta]:
    """The server's events as deltas. The server ends at the EOS ids that it knows; the request may
    name others."""
    stops = frozenset(request.stop_ids)
    prompt_tokens = len(request.token_ids)
    async for data in events:
        event = _decode_event(data)
        if event.error is not None:
            raise EngineError(f"llama.cpp: {event.error.get('message', event.error)}")
        if event.stop:
            reason = "length" if event.stop_type == "limit" else "stop"
            finish = Finish(reason, prompt_tokens, event.tokens_predicted, event.cached)  # type: ignore[arg-type]
            yield Delta(event.tokens, finish=finish)
            return
        if not stops.isdisjoint(event.tokens):
            yield Delta(event.tokens, finish=Finish("stop", prompt_tokens, event.tokens_predicted))
            return
        yield Delta(event.tokens)
    raise EngineError("llama.cpp ended the answer without a last event.")


def _body(request: Request) -> dict[str, Any]:
    sampling = request.sampling
    return {
        "prompt": request.token_ids,
        "n_predict": request.max_tokens,
        "stream": True,
        "return_tokens": True,
        "cache_prompt": True,
        "response_fields": _FINAL_FIELDS,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "seed": -1 if sampling.seed is None else sampling.seed & 0xFFFFFFFF,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": _WHOLE_SEQUENCE,
        "logit_bias": list(sampling.logit_bias.items()),
        "ignore_eos": request.ignore_eos,
    }


@asynccontextmanager
async def open_engine(spec: EngineSpec) -> AsyncIterator[LlamaCpp]:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)  # read when the library is loaded
    try:
        import xllamacpp
    except ImportError as error:
        raise EngineNotInstalled(
            f"llama_cpp is not installed ({error}); run `pip install xllamacpp`."
        ) from error
    path = os.path.join(spec.workdir, "llama.sock")
    params = common_params(spec, path)
    try:
        server = await asyncio.to_thread(xllamacpp.Server, params)
    except RuntimeError as error:
        raise EngineError(f"llama.cpp could not load {spec.model}: {error}.") from error
    try:
        slots = _decode_slots(await get(path, "/slots"))
        context = params.n_ctx // len(slots)
        yield LlamaCpp(path, metadata.version("xllamacpp"), context, len(slots))
    finally:
        del server
