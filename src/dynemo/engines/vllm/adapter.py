"""`out=vllm`: checkouts through the back half of vLLM, its `AsyncLLM`.

vLLM's engine core runs in a process of its own behind ZMQ, and its workers in others; it is fed
token ids and gives token ids. Its HTTP server, its tokenizer and its templates are not used.
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

from dynemo.engines.guard import start_guard, start_tracker
from dynemo.engines.rendezvous import meeting_place
from dynemo.engines.vllm.args import engine_args, is_gguf
from dynemo.engines.vllm.log import Log, words_of
from dynemo.engines.vllm.nodes import follower_lost, leader_lost
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
from dynemo.messages.request import Request
from dynemo.messages.spec import EngineSpec

#: Settings that it honours.
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
_CAPABILITIES = Capabilities(
    sampling=SETTINGS,
)
_KILLED = "its engine core was killed, as the system kills what takes too much memory"
_SHUTDOWN_SECONDS = 1.0  # for the core; after that it is killed
#: Ids of `logit_bias`, in vLLM's runner for GPUs; one more would end its worker.
_MOST_BIASED = 1024
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


class Vllm:
    capabilities = _CAPABILITIES

    def __init__(self, engine: Any, stats: Stats) -> None:
        import vllm
        from vllm.platforms import current_platform

        config = engine.vllm_config
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
        prompt = {"type": "token", "prompt_token_ids": request.token_ids}
        count = 0
        self._open += 1
        try:
            params = _params(request, self._vocabulary)
            async with aclosing(self._engine.generate(prompt, params, request.id)) as outputs:
                async for output in outputs:
                    part = output.outputs[0]
                    cached = 0 if count else output.num_cached_tokens or 0
                    count += len(part.token_ids)
                    if part.finish_reason is None:
                        yield Delta(part.token_ids, cached_tokens=cached)
                    else:
                        yield Delta(part.token_ids, finish=_finish(request, output, count))
        except EngineDeadError as error:
            raise EngineLost("vLLM's engine core has ended.") from error
        except GracefulHTTPError as error:  # its queue is as full as the user lets it be
            raise Unavailable(f"vLLM: {error}") from error
        except VLLMClientError as error:
            field = getattr(error, "parameter", None)
            raise RequestError(f"vLLM: {error.args[0]}", param=field) from error
        finally:
            self._open -= 1

    async def load(self) -> Load:
        """vLLM tells what it is busy with at each step, and is silent once nothing is left."""
        if not self._open:
            return Load()
        running = min(self._stats.running, self._open)
        return Load(running, self._open - running, self._stats.kv_use)


def check_request(request: Request, vocabulary: int, most_biased: int) -> None:
    """Raises RequestError for what would end vLLM's worker, and with it everything: an id that the
    model has no row for, and more than `most_biased` ids in `logit_bias`."""
    ids = request.token_ids
    if not ids or max(ids) >= vocabulary or min(ids) < 0:
        raise RequestError(f"The prompt has an id that is none of the {vocabulary} here.")
    if (count := len(request.sampling.logit_bias)) > most_biased:
        said = f"'logit_bias' names {count} ids, and vLLM takes at most {most_biased}."
        raise RequestError(said, param="logit_bias")


def _params(request: Request, vocabulary: int) -> Any:
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    sampling = request.sampling
    return SamplingParams(
        max_tokens=request.max_tokens,
        # It refuses those that the model cannot generate.
        stop_token_ids=[stop for stop in request.stop_ids if stop < vocabulary],
        ignore_eos=request.ignore_eos,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        seed=None if sampling.seed is None else sampling.seed % (1 << 63),  # its own -1: none
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        logit_bias=sampling.logit_bias or None,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        skip_clone=True,
    )


def _finish(request: Request, output: Any, count: int) -> Finish:
    told = output.outputs[0].finish_reason
    if told not in _REASONS:
        raise EngineError(f"vLLM ended the answer: {told}.")
    cached = output.num_cached_tokens or 0
    return Finish(_REASONS[told], len(request.token_ids), count, cached)


@asynccontextmanager
async def open_engine(spec: EngineSpec) -> AsyncIterator[Vllm]:
    log = _prepare(spec)
    stats = Stats()
    with _translated(spec, log):
        engine = _load(spec, log, stats)
    log.forget()
    watch = asyncio.create_task(_watch(engine, log))
    try:
        yield Vllm(engine, stats)
    finally:
        watch.cancel()
        engine.output_handler.cancel()  # or it would log the end of the core as a failure
        await asyncio.to_thread(engine.shutdown, _SHUTDOWN_SECONDS)


def _prepare(spec: EngineSpec) -> Log:
    """What must be before vLLM is imported. Raises UsageError for what it cannot load at all."""
    if is_gguf(spec) and find_spec("vllm_gguf_plugin") is None:
        raise UsageError(
            "vLLM reads a GGUF only with vllm-gguf-plugin, on a GPU: install that for "
            f"{sys.executable}, or give out=llama_cpp, which runs this file now."
        )
    if spec.parallel.nodes > 1:
        meeting_place(spec.parallel)  # now, and not after the seconds that its import takes
    temporary = tempfile.gettempdir()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{temporary}/torchinductor-{os.getuid()}")
    tempfile.tempdir = None  # read anew
    os.environ.update(
        # Sockets and files, which it leaves behind; but for what shall be found the next time.
        TMPDIR=spec.workdir,
        # A fork would keep our connection to the runner open after our end.
        VLLM_WORKER_MULTIPROC_METHOD="spawn",
    )
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # nothing is reported to anybody unasked
    start_guard(spec.workdir)
    start_tracker()
    atexit.register(_end_at_once)  # first, and so called last
    return Log(spec.workdir, spec.verbosity)


def _end_at_once() -> None:
    """Leaves out the seconds that it takes to take all of torch apart, object by object."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _load(spec: EngineSpec, log: Log, stats: Stats) -> Any:
    """Starts the core and its workers; blocks until they are ready."""
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    args = engine_args(spec, log.config)
    context = UsageContext.OPENAI_API_SERVER  # the defaults of `vllm serve`
    engine = AsyncLLM.from_engine_args(args, usage_context=context)
    if engine.logger_manager is not None:
        # Its own logger and its Prometheus metrics would cost each step, and nobody reads them.
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
        words = log.failure() or (_KILLED if _is_of_core(error) else words_of(error))
        raise UsageError(f"vLLM cannot load {spec.model}: {words}.") from error


def _is_of_core(error: Exception) -> bool:
    """Whether the core has ended before it was ready; why, its own processes tell if they can."""
    return any(
        frame.name == "wait_for_engine_startup"
        for frame in traceback.extract_tb(error.__traceback__)
    )


async def _watch(engine: Any, log: Log) -> None:
    """Ends this process when the core has ended, or another node: the runner does what follows."""
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
        ended = f"Rank {rank} of vLLM has gone"
    await asyncio.sleep(0.2)  # for the streams to be told, and for what else is said of it
    words = log.failure()
    # As an exception is printed: the runner tells the last one.
    print(f"EngineError: {ended}{f': {words}' if words else ''}", flush=True)
    await asyncio.sleep(0.1)  # for this to be read
    os._exit(1)


async def follow(spec: EngineSpec, on_joined: Callable[[], None]) -> None:
    """The workers of a rank above 0, as `vllm serve --headless` runs them: rank 0's core schedules
    for all. They end with their leader."""
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
            raise EngineError(f"vLLM's workers have ended: {log.failure() or 'nothing is told'}.")
    finally:
        leader.cancel()
        await asyncio.to_thread(executor.shutdown)


def _address(parallel: Any) -> tuple[str, int]:
    """Where the ranks have met."""
    return parallel.master_addr, parallel.master_port


def _join(spec: EngineSpec, log: Log) -> Any:
    """Starts this rank's workers; blocks until all ranks have met and loaded."""
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor

    args = engine_args(spec, log.config)
    context = UsageContext.OPENAI_API_SERVER
    config = args.create_engine_config(usage_context=context, headless=True)
    return MultiprocExecutor(config, monitor_workers=False)
