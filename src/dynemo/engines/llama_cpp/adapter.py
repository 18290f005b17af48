"""`out=llama_cpp`: GGUF models in llama.cpp's own server, from the `xllamacpp` wheel.

The server listens on a Unix socket in the host's private folder. It takes token ids on
`/completion`, and does the batching, prompt caching and sampling. Closing the connection aborts a
sequence: the server notices at the next token, or during a prompt at the end of the chunk.
"""

import asyncio
import os
from array import array
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, closing
from sys import byteorder
from typing import Any

from msgspec import Struct, json, structs

from dynemo.engines.guides.judge import GuideJudge, open_judge
from dynemo.engines.guides.verdict import GUIDE_FIELD
from dynemo.engines.llama_cpp.grammar import open_grammar
from dynemo.engines.llama_cpp.params import common_params, device_name
from dynemo.engines.llama_cpp.slots import Slot, Slots
from dynemo.engines.llama_cpp.wire import ask, get, post
from dynemo.errors import EngineError, EngineNotInstalled, ModelError, RequestError
from dynemo.foreign import decode_json, json_decoder
from dynemo.messages.answer import Delta, Finish, FinishReason, Scores
from dynemo.messages.records import Capabilities, Load
from dynemo.messages.request import CONTINUED_KINDS, Request
from dynemo.messages.scores import pack_score
from dynemo.messages.spec import EngineSpec
from dynemo.messages.wire import EngineLoad

#: The settings that it supports.
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
    "stop_ids",
    "logprobs",
]
_CAPABILITIES = Capabilities(
    gives="text",
    shows_control=True,
    sampling=SETTINGS,
    guides=["json_schema", "regex", "choice", "grammar", "lark"],
    continues=[*CONTINUED_KINDS],
)

ENVIRONMENT = {
    # After a crash, end at once instead of searching for a debugger.
    "GGML_NO_BACKTRACE": "1",
    # The threads synchronize after every operation. Spinning there takes cores from other processes
    # and from each other. With one more busy process, 100 M parameters on two cores fell from 150
    # to 1 token/s; with sleeping threads they reached 110.
    "OMP_WAIT_POLICY": "PASSIVE",
}

#: The final event, without the prompt and the settings.
_FINAL_FIELDS = ["stop", "stop_type", "tokens_predicted", "timings/cache_n"]


class _Progress(Struct):
    cache: int = 0


class _Likely(Struct):
    id: int
    logprob: float


class _Chosen(_Likely):
    """How likely a token was, before any setting of the request was applied."""

    top_logprobs: list[_Likely] = []


class _Event(Struct, rename={"cached": "timings/cache_n"}):
    """A server-sent event of `/completion`. The last one has `stop`."""

    content: str = ""
    tokens: list[int] = []
    stop: bool = False
    stop_type: str = ""
    tokens_predicted: int = 0
    cached: int = 0
    prompt_progress: _Progress | None = None
    completion_probabilities: list[_Chosen] = []
    error: Any = None


class _Slot(Struct):
    is_processing: bool
    n_ctx: int
    n_prompt_tokens: int = 0  #: of the prompt and the generated text


class _Embedded(Struct):
    embedding: list[list[float]]  #: one vector if the texts are pooled


_decode_event = json_decoder(_Event)
_decode_slots = json_decoder(list[_Slot])


#: A server started for embeddings cannot generate text.
_EMBEDDING = Capabilities(tasks=("embed",))


class LlamaCpp:
    def __init__(
        self,
        path: str,
        version: str,
        params: Any,
        context_length: int,
        slots: int,
        judge: GuideJudge,
    ) -> None:
        self.capabilities = _EMBEDDING if params.embedding else _CAPABILITIES
        self.version = version
        self.device = device_name(params)
        self.context_length = context_length
        self.slots = slots
        self._path = path
        self._judge = judge
        # Slightly more than the slots, so that a free slot finds its next prompt in the server.
        # Further requests wait here, where they can be cancelled at once.
        self._admitted = asyncio.Semaphore(slots + 2)
        self._progress = 0  # events of prompts
        self._slots = Slots(slots, has_shared_cache=params.cache_ram_mib != 0)
        self._open = 0  # requests that have not ended; the server does not report its queue

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        self._open += 1
        try:
            # Judged before it takes a place, which another request could use meanwhile.
            guide = "" if request.guide is None else await self._judge.judge(request.guide)
            async with self._admitted:
                if request.embed:
                    yield await self._embed(request)
                    return
                async with self._slots.slot(request) as slot:
                    with closing(await open_grammar(guide)) as grammar:
                        body = json.encode(_body(request, self.context_length, grammar.text, slot))
                        sequence = _Sequence(request)
                        async with post(self._path, "/completion", body) as events:
                            while data := await events.next():
                                event = _decode_event(data)
                                self._progress += event.prompt_progress is not None
                                delta = sequence.feed(event)
                                if delta is not None:
                                    grammar.check(delta)
                                    slot.is_done = delta.finish is not None
                                    yield delta
                                    if slot.is_done:
                                        return
            raise EngineError("llama.cpp ended the answer without a final event.")
        except RequestError as error:
            if request.guide is not None:  # everything else was checked before
                error.param = GUIDE_FIELD
            raise
        finally:
            self._open -= 1

    async def _embed(self, request: Request) -> Delta:
        body = json.encode({"content": request.token_ids, "cache_prompt": False})
        answer = await ask(self._path, "/embedding", body)
        [vector] = decode_json(answer, list[_Embedded])[0].embedding
        data = array("f", vector)
        if byteorder == "big":
            data.byteswap()
        finish = Finish("stop", len(request.token_ids), 0)
        return Delta(finish=finish, embedding=data.tobytes())

    async def load(self) -> Load:
        slots = _decode_slots(await get(self._path, "/slots"))
        running = sum(slot.is_processing for slot in slots)
        used = sum(slot.n_prompt_tokens for slot in slots if slot.is_processing)
        kv_use = used / sum(slot.n_ctx for slot in slots)
        return EngineLoad(running, max(0, self._open - running), kv_use, self._progress)


class _Sequence:
    """Converts the server's events of one sequence to deltas.

    While the text ends inside a character the server sends nothing, and then only the last token's
    id. So its output is text, plus the number of tokens of that text. The server ends at the EOS
    ids that it knows; the request may name others.
    """

    def __init__(self, request: Request) -> None:
        self._stop_ids = frozenset(request.stop_ids)
        self._request = request
        self._prompt_tokens = len(request.token_ids)
        self._seen = 0
        self._cached = 0
        self._last: Delta | None = None  # the tokens up to a stop id, kept until the next event

    def feed(self, event: _Event) -> Delta | None:
        if event.error is not None:
            raise EngineError(f"llama.cpp: {_reason(event.error)}.")
        if self._last is not None:
            return self._end("stop", self._last, event.cached)
        if event.stop:
            reason: FinishReason = "length" if event.stop_type == "limit" else "stop"
            return self._end(reason, self._delta(event), event.cached)
        if event.tokens_predicted == 0:  # an event of the prompt
            if event.prompt_progress is not None:
                self._cached = event.prompt_progress.cache
            return None
        if not self._stop_ids.isdisjoint(event.tokens):
            self._last = self._stopped(event)
            return None
        cached, self._cached = self._cached, 0
        return self._delta(event, cached)

    def _delta(self, event: _Event, cached: int = 0) -> Delta:
        """Returns one text per token. The last token gets the whole text of the event, and the only
        score: the server gives none for the tokens before the end of a character."""
        count, self._seen = event.tokens_predicted - self._seen, event.tokens_predicted
        if count <= 0:
            return Delta(cached_tokens=cached)
        texts = [*[""] * (count - 1), event.content]
        scores = None
        if self._request.logprobs is not None:
            score = _score(event.completion_probabilities, self._request.logprobs)
            scores = Scores([*[b""] * (count - 1), score if event.content else b""])
        return Delta(texts=texts, cached_tokens=cached, scores=scores)

    def _stopped(self, event: _Event) -> Delta:
        """Returns the tokens up to a stop id, whose text is usually hidden."""
        delta, request = self._delta(event), self._request
        if not (request.include_stop or any(i in request.shown for i in event.tokens)):
            delta.texts[-1:] = [""]
            if delta.scores is not None:
                delta.scores.tokens[-1:] = [b""]
        met = next((i for i in event.tokens if i in request.client_stop_ids), None)
        finish = Finish("stop", self._prompt_tokens, self._seen, matched=met)
        return structs.replace(delta, finish=finish)

    def _end(self, reason: FinishReason, delta: Delta, cached: int) -> Delta:
        finish = delta.finish or Finish(reason, self._prompt_tokens, self._seen)
        return structs.replace(delta, finish=structs.replace(finish, cached_tokens=cached))


def _score(chosen: list[_Chosen], likeliest: int) -> bytes:
    if not chosen:
        return b""
    top = [(other.id, other.logprob) for other in chosen[0].top_logprobs[:likeliest]]
    return pack_score(chosen[0].id, chosen[0].logprob, top)


def _reason(error: Any) -> str:
    """Returns the server's error message, without a full stop."""
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message).rstrip(".")


def _body(request: Request, context_length: int, grammar: str, slot: Slot) -> dict[str, Any]:
    sampling = request.sampling
    return {
        "prompt": request.token_ids,
        "n_predict": request.max_tokens,
        "stream": True,
        "return_tokens": True,
        "return_progress": True,
        "cache_prompt": slot.has_cache,
        "id_slot": slot.number,
        "response_fields": _FINAL_FIELDS,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # Without top_k 1, greedy sampling would compute the probability of every token, for each
        # sequence of a step in turn, on one thread.
        "top_k": 1 if sampling.temperature == 0 else sampling.top_k,
        "min_p": sampling.min_p,
        # The server's -1, which is also the largest value, means a random seed.
        "seed": -1 if sampling.seed is None else sampling.seed % 0xFFFFFFFF,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": context_length,  # penalties apply to the whole sequence
        "logit_bias": list(sampling.logit_bias.items()),
        "ignore_eos": request.ignore_eos,
        # Without the likeliest ones it tells nothing of the chosen token either.
        "n_probs": 0 if request.logprobs is None else max(1, request.logprobs),
        "preserved_tokens": list(request.shown.values()),
        "grammar": grammar,
    }


@asynccontextmanager
async def open_engine(spec: EngineSpec) -> AsyncIterator[LlamaCpp]:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)  # read when the library is loaded
    try:
        import xllamacpp
    except ImportError as error:
        raise EngineNotInstalled(
            f"The engine llama_cpp is not installed ({error}). Run `pip install xllamacpp`."
        ) from error
    path = os.path.join(spec.workdir, "llama.sock")
    params = common_params(spec, path)
    try:
        server = await asyncio.to_thread(xllamacpp.Server, params)
    except RuntimeError as error:
        raise ModelError(f'llama.cpp could not load "{spec.model}".') from error
    try:
        slots = _decode_slots(await get(path, "/slots"))
        context = params.n_ctx // len(slots)
        # Importing `importlib.metadata` would take longer than loading a small model.
        version = getattr(xllamacpp, "__version__", "unknown")
        async with open_judge("dynemo.engines.llama_cpp.guide") as judge:
            yield LlamaCpp(path, version, params, context, len(slots), judge)
    finally:
        del server
