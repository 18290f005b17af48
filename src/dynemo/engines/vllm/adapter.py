"""`out=vllm`: checkouts in vLLM's backend, its `AsyncLLM`.

vLLM's engine core runs in its own process behind ZMQ, and its workers in others. It takes and
returns token ids. Its HTTP server, its tokenizer and its templates are not used.
"""

import asyncio
import atexit
import os
import sys
import tempfile
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from importlib.util import find_spec
from typing import Any

from dynemo.engines.compiled import keep_compiled_code
from dynemo.engines.guard import start_guard, start_tracker
from dynemo.engines.guides.judge import GuideJudge, open_judge
from dynemo.engines.guides.verdict import GUIDE_FIELD
from dynemo.engines.rendezvous import rendezvous_address
from dynemo.engines.vllm import guides
from dynemo.engines.vllm.args import engine_args, is_gguf
from dynemo.engines.vllm.log import Log, reason_of
from dynemo.engines.vllm.nodes import follower_lost, leader_lost
from dynemo.engines.vllm.scores import scores_of
from dynemo.engines.vllm.stats import Stats
from dynemo.errors import (
    DynemoError,
    EngineError,
    EngineLost,
    RequestError,
    Unavailable,
    UsageError,
)
from dynemo.messages.answer import Delta, Finish, FinishReason
from dynemo.messages.records import Capabilities, Load
from dynemo.messages.request import CONTINUED_KINDS, Request
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
    "min_tokens",
    "logprobs",
    "prompt_logprobs",
]
_KILLED = "its engine core was killed, probably because the system ran out of memory"
_SHUTDOWN_SECONDS = 1.0  # for the core, before it is killed
#: The limit for `logit_bias` in vLLM's runner for GPUs. More ids would end its worker.
_MOST_BIASED = 1024
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class Vllm:
    def __init__(self, engine: Any, stats: Stats, judge: GuideJudge) -> None:
        import vllm
        from vllm.platforms import current_platform

        config = engine.vllm_config
        kinds = guides.guide_kinds(config)
        self.capabilities = Capabilities(
            sampling=SETTINGS,
            guides=[*kinds],
            continues=[kind for kind in kinds if kind in CONTINUED_KINDS],
        )
        self._judge = judge
        self._guide_end = guides.end_token(engine)
        self.version: str = vllm.__version__
        self.device: str = current_platform.device_type
        self.context_length: int = config.model_config.max_model_len
        self.slots: int = config.scheduler_config.max_num_seqs
        self._engine = engine
        self._stats = stats
        self._vocabulary: int = config.model_config.get_vocab_size()
        self._most_biased = _MOST_BIASED if config.use_v2_model_runner else self._vocabulary
        self._open = 0

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        from vllm.exceptions import GracefulHTTPError, VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError

        check_request(request, self._vocabulary, self._most_biased)
        prompt: dict[str, Any] = {"type": "token", "prompt_token_ids": request.token_ids}
        if request.cache_salt:
            prompt["cache_salt"] = request.cache_salt
        count = 0
        self._open += 1
        try:
            lark = None if request.guide is None else await self._judge.judge(request.guide)
            params = _params(request, self._vocabulary, lark, self._guide_end)
            async with aclosing(self._engine.generate(prompt, params, request.id)) as outputs:
                async for output in outputs:
                    part = output.outputs[0]
                    cached = 0 if count else output.num_cached_tokens or 0
                    count += len(part.token_ids)
                    scores = scores_of(request, output)
                    if part.finish_reason is None:
                        yield Delta(part.token_ids, cached_tokens=cached, scores=scores)
                    else:
                        finish = _finish(request, output, count)
                        yield Delta(part.token_ids, finish=finish, scores=scores)
        except EngineDeadError as error:
            raise EngineLost("vLLM's engine core has ended.") from error
        except GracefulHTTPError as error:  # its queue has reached the user's limit
            raise Unavailable(f"vLLM: {reason_of(error)}.") from error
        except VLLMClientError as error:
            field = GUIDE_FIELD if request.guide else getattr(error, "parameter", None)
            raise RequestError(f"vLLM: {str(error.args[0]).rstrip('.')}.", param=field) from error
        finally:
            self._open -= 1

    async def load(self) -> Load:
        """Returns the load. vLLM reports it at each step, but not when it becomes idle."""
        steps = self._stats.steps
        if not self._open:
            return EngineLoad(progress=steps)
        running = min(self._stats.running, self._open)
        return EngineLoad(running, self._open - running, self._stats.kv_use, steps)


def check_request(request: Request, vocabulary: int, most_biased: int) -> None:
    """Raises RequestError for a request that would end vLLM's worker.

    Such a request has an id without a row in the model, or over `most_biased` ids in `logit_bias`.
    """
    ids = request.token_ids
    if not ids or max(ids) >= vocabulary or min(ids) < 0:
        raise RequestError(
            f"The prompt has a token id that is out of range. Valid ids are 0 to {vocabulary - 1}."
        )
    if (count := len(request.sampling.logit_bias)) > most_biased:
        message = f"'logit_bias' names {count} ids, but vLLM takes at most {most_biased}."
        raise RequestError(message, param="logit_bias")


def _params(request: Request, vocabulary: int, lark: str | None, guide_end: list[int]) -> Any:
    """`lark` is the guide, which ends the answer with `guide_end`."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    sampling = request.sampling
    stops = [*request.stop_ids, *(guide_end if lark is not None else ())]
    return SamplingParams(
        max_tokens=request.max_tokens,
        # vLLM refuses ids that the model cannot generate.
        stop_token_ids=[stop for stop in stops if stop < vocabulary],
        ignore_eos=request.ignore_eos,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        seed=None if sampling.seed is None else sampling.seed % (1 << 63),  # vLLM's -1: none
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        logit_bias=sampling.logit_bias or None,
        min_tokens=request.min_tokens,
        logprobs=request.logprobs,
        prompt_logprobs=request.prompt_logprobs,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        skip_clone=True,
        structured_outputs=guides.structured_outputs(lark) if lark is not None else None,
    )


def _finish(request: Request, output: Any, count: int) -> Finish:
    reason = output.outputs[0].finish_reason
    if reason not in _REASONS:
        raise EngineError(f'vLLM ended the answer with the reason "{reason}".')
    cached = output.num_cached_tokens or 0
    return Finish(_REASONS[reason], len(request.token_ids), count, cached)


@asynccontextmanager
async def open_engine(spec: EngineSpec) -> AsyncIterator[Vllm]:
    log = _prepare(spec)
    stats = Stats()
    with _translated(spec, log):
        engine = _load(spec, log, stats)
    log.forget()
    watch = asyncio.create_task(_watch(engine, log))
    try:
        async with open_judge("dynemo.engines.guides.wheel") as judge:
            yield Vllm(engine, stats, judge)
    finally:
        watch.cancel()
        engine.output_handler.cancel()  # otherwise it would log the end of the core as a failure
        await asyncio.to_thread(engine.shutdown, _SHUTDOWN_SECONDS)


def _prepare(spec: EngineSpec) -> Log:
    """Prepares the environment before vLLM is imported.

    Raises UsageError if vLLM cannot load the model.
    """
    if is_gguf(spec) and find_spec("vllm_gguf_plugin") is None:
        raise UsageError(
            "vLLM reads a GGUF only with vllm-gguf-plugin, on a GPU. Install that for "
            f"{sys.executable}, or use out=llama_cpp for this file."
        )
    if spec.parallel.nodes > 1:
        rendezvous_address(spec.parallel)  # checked before the import, which takes seconds
    keep_compiled_code(spec.workdir)
    tempfile.tempdir = None  # read again on next use
    os.environ.update(
        # Sockets and files that vLLM does not remove, but not the compiled code for the next start.
        TMPDIR=spec.workdir,
        # A fork would keep our connection to the runner open after our end.
        VLLM_WORKER_MULTIPROC_METHOD="spawn",
    )
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # no reports without the user's consent
    start_guard(spec.workdir)
    start_tracker()
    atexit.register(_end_at_once)  # registered first, so it runs last
    return Log(spec.workdir, spec.verbosity)


def _end_at_once() -> None:
    """Exits at once: taking torch apart, object by object, would take seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _load(spec: EngineSpec, log: Log, stats: Stats) -> Any:
    """Starts the core and its workers. Blocks until they are ready."""
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    args = engine_args(spec, log.config)
    context = UsageContext.OPENAI_API_SERVER  # the defaults of `vllm serve`
    engine = AsyncLLM.from_engine_args(args, usage_context=context)
    if engine.logger_manager is not None:
        # Its own logger and its Prometheus metrics would slow each step, and are not used.
        engine.logger_manager.stat_loggers = [stats]
    return engine


@contextmanager
def _translated(spec: EngineSpec, log: Log) -> Iterator[None]:
    try:
        yield
    except DynemoError:
        raise
    except Exception as error:
        if spec.verbosity > 1:
            traceback.print_exc()
        reason = log.failure() or (_KILLED if _ended_core(error) else reason_of(error))
        raise UsageError(f'vLLM could not load "{spec.model}": {reason}.') from error


def _ended_core(error: Exception) -> bool:
    """Whether the core ended before it was ready.

    Its own processes report the reason if they can.
    """
    return any(
        frame.name == "wait_for_engine_startup"
        for frame in traceback.extract_tb(error.__traceback__)
    )


async def _watch(engine: Any, log: Log) -> None:
    """Ends this process when the core or another node has ended. The runner handles the rest."""
    nodes = engine.vllm_config.parallel_config
    core = asyncio.ensure_future(asyncio.wait([engine.output_handler]))
    ending: list[asyncio.Future[Any]] = [core]
    if nodes.nnodes > 1:
        ending.append(asyncio.ensure_future(follower_lost(_address(nodes), nodes.nnodes)))
    try:
        await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in ending:
            task.cancel()
    ended = "vLLM's engine core has ended"
    if not core.done() and (rank := ending[1].result()):
        ended = f"Rank {rank} of vLLM has ended"
    await asyncio.sleep(0.2)  # time for the streams to receive the error, and for more log lines
    reason = log.failure()
    # Printed like an exception: the runner reports the last one.
    print(f"EngineError: {ended}{f': {reason}' if reason else ''}.", flush=True)
    await asyncio.sleep(0.1)  # time for the runner to read it
    os._exit(1)


async def follow(spec: EngineSpec, on_joined: Callable[[], None]) -> None:
    """Runs the workers of a rank above 0 like `vllm serve --headless`. They end with their leader.

    Rank 0's core schedules for all ranks.
    """
    log = _prepare(spec)
    with _translated(spec, log):
        executor = await asyncio.to_thread(_join, spec, log)
    log.forget()
    on_joined()
    address = _address(executor.parallel_config)
    workers = asyncio.ensure_future(asyncio.to_thread(executor.start_worker_monitor, inline=True))
    leader = asyncio.ensure_future(leader_lost(address, spec.parallel.rank))
    try:
        await asyncio.wait({workers, leader}, return_when=asyncio.FIRST_COMPLETED)
        if workers.done():
            raise EngineError(
                f"vLLM's workers have ended: {log.failure() or 'no reason was logged'}."
            )
    finally:
        leader.cancel()
        await asyncio.to_thread(executor.shutdown)


def _address(parallel: Any) -> tuple[str, int]:
    """Returns the address where the ranks have met."""
    return parallel.master_addr, parallel.master_port


def _join(spec: EngineSpec, log: Log) -> Any:
    """Starts this rank's workers. Blocks until all ranks have met and loaded."""
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor

    args = engine_args(spec, log.config)
    context = UsageContext.OPENAI_API_SERVER
    config = args.create_engine_config(usage_context=context, headless=True)
    return MultiprocExecutor(config, monitor_workers=False)
