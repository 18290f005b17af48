"""`out=mistralrs`: GGUF files and checkouts in mistral.rs, from the `mistralrs` wheel.

The wheel takes messages and returns text. A template that prints one message's content passes our
rendered prompt through unchanged. Each token is requested with its logprob: only then does the
wheel return tokens singly and with their bytes. Otherwise the tokens of one character arrive as
one, and white space before the first word is lost.

The wheel's iterator blocks, so a thread reads each sequence. Dropping the iterator aborts: the
thread does so at the next token, and the engine notices one token later.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Lock, Thread, current_thread
from typing import Any

from dynemo.engines.guides.judge import GuideJudge, open_judge
from dynemo.engines.mistralrs.control import control_spellings, with_control_tokens
from dynemo.engines.mistralrs.model import environment, runner_arguments
from dynemo.engines.mistralrs.stream import (
    MOST_LIKELIEST,
    ChunkStream,
    Sequence,
    StreamWaker,
    reason_of,
)
from dynemo.errors import EngineNotInstalled, ModelError, UsageError
from dynemo.messages.answer import Delta, Finish
from dynemo.messages.records import Capabilities, Load
from dynemo.messages.request import CONTINUED_KINDS, JOINER, Request
from dynemo.messages.spec import EngineSpec

#: The settings that it supports. Seeds are per runner, not per request.
SETTINGS = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "ignore_eos",
    "stop_ids",
    "logprobs",
]
_CAPABILITIES = Capabilities(
    takes="text",
    gives="text",
    shows_control=True,
    sampling=SETTINGS,
    guides=["json_schema", "regex", "choice", "lark"],
    continues=[*CONTINUED_KINDS],
)
_MOST_MIN_P = 1 - 1e-6  # mistral.rs treats 1 as off
_JOIN_SECONDS = 2.0


class MistralRs:
    capabilities = _CAPABILITIES

    def __init__(
        self,
        runner: Any,
        version: str,
        device: str,
        context: int,
        slots: int,
        *,
        judge: GuideJudge,
        control: Mapping[str, str],
    ) -> None:
        self._judge = judge
        self._control = control  # see `control_spellings`
        self.version = version
        self.device = device
        self.context_length = context
        self.slots = slots
        self._runner = runner
        self._lock = Lock()  # the runner refuses two calls at once; reading does not count
        self._waker = StreamWaker()
        self._stops: dict[int, tuple[str, bool]] = {}
        self._threads: set[Thread] = set()
        self._open: set[ChunkStream] = set()
        # Requests wait here, where they need no thread and can be cancelled at once. The engine
        # would first process the prompt, because it notices an abort only at the next token.
        self._admitted = asyncio.Semaphore(slots)
        self._waiting = 0
        self._has_warned = False

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        guide = None if request.guide is None else await self._judge.judge(request.guide)
        self._waiting += 1
        try:
            await self._admitted.acquire()
        finally:
            self._waiting -= 1
        stream = ChunkStream(self._waker)
        self._open.add(stream)
        try:
            thread = Thread(target=self._read, args=(request, guide, stream), daemon=True)
            self._threads.add(thread)
            thread.start()
            sequence = Sequence(request, self._control)
            while True:
                delta = sequence.feed(await stream.take(), stream.ends)
                yield delta
                if delta.finish is not None:
                    self._check(request, delta.finish)
                    return
        finally:
            stream.is_closed = True
            self._open.discard(stream)
            self._admitted.release()

    async def load(self) -> Load:
        return Load(running=len(self._open), waiting=self._waiting)

    def end(self) -> None:
        """Closes all streams and waits for their threads.

        No thread may return from the library while the interpreter exits.
        """
        for stream in self._open:
            stream.is_closed = True
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))

    def _read(self, request: Request, guide: str | None, stream: ChunkStream) -> None:
        """Runs in a thread: puts every chunk into the stream, and finally the error, if any.

        `guide` is the guide as its judge returned it.
        """
        try:
            stops = [self._stop_text(token_id) for token_id in request.stop_ids]
            # The engine does not tell which stop has ended it. So the adapter ends the sequence
            # if one of the stops is part of the text, or belongs to the client.
            told = {*request.shown, *request.client_stop_ids}
            must_tell = not told.isdisjoint(request.stop_ids)
            specials = [text for text, is_special in stops if is_special and not must_tell]
            ends = zip(stops, request.stop_ids, strict=True)
            stream.ends = {text.encode(): i for (text, _), i in ends if text not in specials}
            chat_request = _chat_request(request, guide, specials, must_tell)
            with self._lock:
                if stream.is_closed:
                    return
                chunks = self._runner.send_chat_completion_request(chat_request)
            for chunk in chunks:
                if stream.is_closed:
                    return
                stream.put(chunk)
            # Without a finish the reader would wait forever.
            stream.put(EOFError("the answer ended without a finish"))
        except BaseException as error:  # a panic of the library is not an Exception
            stream.put(error)
        finally:
            self._threads.discard(current_thread())

    def _stop_text(self, token_id: int) -> tuple[str, bool]:
        """Returns a stop id's text, and whether it is a special token.

        The engine ends at the text of special tokens. For other tokens this would be wrong, because
        other tokens may contain the same text.
        """
        with self._lock:
            known = self._stops.get(token_id)
            if known is None:
                text = self._runner.detokenize_text([token_id], False)
                shown = self._runner.detokenize_text([token_id], True)
                is_alone = self._runner.tokenize_text(text, False, None) == [token_id]
                known = self._stops[token_id] = text, not shown and is_alone
        return known

    def _check(self, request: Request, finish: Finish) -> None:
        """Warns once if the engine's own tokenizer encodes a prompt differently."""
        if JOINER in request.prompt:
            return  # it is in the text only, so that a user's text does not become a control token
        if finish.prompt_tokens != len(request.token_ids) and not self._has_warned:
            self._has_warned = True
            print(
                f"Warning: mistral.rs counts {finish.prompt_tokens} tokens in a prompt of "
                f"{len(request.token_ids)}. Its tokenizer for this model differs.",
                file=sys.stderr,
                flush=True,
            )


def _chat_request(request: Request, guide: str | None, stops: list[str], ends_here: bool) -> Any:
    """Returns the wheel's request.

    It sets everything that `generation_config.json` could change.
    """
    import mistralrs

    sampling = request.sampling
    return mistralrs.ChatCompletionRequest(
        messages=[{"role": "user", "content": request.prompt}],
        model="default",
        stream=True,
        logprobs=True,
        top_logprobs=1 if request.logprobs is None else MOST_LIKELIEST,
        max_tokens=request.max_tokens,
        stop_seqs=stops or None,
        ignore_eos=request.ignore_eos or ends_here,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=min(sampling.min_p, _MOST_MIN_P),
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        logit_bias=sampling.logit_bias or None,
        grammar=guide,
        grammar_type="lark" if guide is not None else None,
        **with_control_tokens(),
    )


def _build(package: Path) -> tuple[str, str]:
    """Returns the installed version, and the device of this build.

    Importing `importlib.metadata` would take longer than loading a small model.
    """
    for info in package.parent.glob("mistralrs*.dist-info"):
        name, _, version = info.name.removesuffix(".dist-info").partition("-")
        if "cuda" in name:
            return version, "cuda"
        return version, "metal" if sys.platform == "darwin" else "cpu"
    return "unknown", "metal" if sys.platform == "darwin" else "cpu"


@asynccontextmanager
async def open_engine(spec: EngineSpec) -> AsyncIterator[MistralRs]:
    for name, value in environment(spec).items():
        os.environ.setdefault(name, value)  # read when the library is loaded
    try:
        import mistralrs
    except ImportError as error:
        raise EngineNotInstalled(
            f"The engine mistralrs is not installed ({error}). Run `pip install mistralrs`."
        ) from error
    version, device = _build(Path(mistralrs.__file__).parent)
    arguments = runner_arguments(spec, device)
    control = control_spellings(spec)
    try:
        # The constructor holds the GIL until the model has loaded, so a thread would not help.
        runner = mistralrs.Runner(**arguments)
    except TypeError as error:
        raise UsageError(f"mistral.rs refuses its options: {error}.") from None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ModelError(
            f'mistral.rs could not load "{spec.model}": {reason_of(error)}.'
        ) from error
    context = spec.context_length or runner.max_sequence_length() or spec.model_context
    async with open_judge("dynemo.engines.mistralrs.guide") as judge:
        slots = arguments["max_seqs"]
        engine = MistralRs(runner, version, device, context, slots, judge=judge, control=control)
        try:
            yield engine
        finally:
            engine.end()
