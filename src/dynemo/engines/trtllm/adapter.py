"""`out=trtllm`: TensorRT-LLM with its LLM API, with token ids in and out.

    a folder with rank0.engine   the TensorRT backend, in versions up to 1.2.x
    a checkout                   the PyTorch backend

It was written against these sources of NVIDIA/TensorRT-LLM:

    4c05a748   llmapi/llm.py
    a678b91a   executor/result.py
    ed53795b   executor/executor.py
    000a01de   sampling_params.py
    21c8b6d4   defaultDecodingParams.h
    2d06866f   executor/rpc_worker_mixin.py (its statistics)
"""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from inspect import signature
from random import getrandbits
from typing import Any

from dynemo.engines.guides.judge import GuideJudge, open_judge
from dynemo.engines.options import read_options, unknown_argument
from dynemo.engines.trtllm.folder import check_ranks, is_engine
from dynemo.engines.trtllm.guides import guide_arguments, guide_kinds, guide_params
from dynemo.engines.trtllm.scores import scores_of
from dynemo.errors import (
    DynemoError,
    EngineError,
    EngineLost,
    EngineNotInstalled,
    ModelError,
    RequestError,
    UsageError,
)
from dynemo.messages.answer import Delta, Finish, FinishReason
from dynemo.messages.records import Capabilities, Load
from dynemo.messages.request import CONTINUED_KINDS, Request
from dynemo.messages.spec import EngineSpec

#: The settings of the PyTorch backend's sampler.
_PYTORCH_SETTINGS = ["temperature", "top_p", "top_k", "ignore_eos", "stop_ids", "logprobs"]
#: The C++ runtime, which runs engine folders, supports more.
SETTINGS = [
    *_PYTORCH_SETTINGS,
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
]
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
#: Marks PyTorch backends since January 2026, which fetch statistics from the engine on demand.
#: Older ones put each step's statistics into a queue that was read five times a second. So the
#: results were old, and unread ones stayed in memory.
_STATS_KEPT = "max_stats_len"
_SEE = "the documentation of `tensorrt_llm.LLM` lists them."
#: Set by `trtllm-llmapi-launch`, which joins the nodes.
_LAUNCHED = "TLLM_SPAWN_PROXY_PROCESS"
_LAUNCH = (
    "TensorRT-LLM joins its nodes with MPI. Start it on all of them with its launcher: mpirun -n "
    "{devices} trtllm-llmapi-launch dynemo-run ... (or srun --mpi=pmix)."
)
_ERROR_SECONDS = 0.2  # time for the streams to receive the error
_MPI_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")


class TrtLlm:
    device = "cuda"

    def __init__(self, module: Any, llm: Any, spec: EngineSpec, judge: GuideJudge) -> None:
        self.version = str(module.__version__)
        sampling = SETTINGS if is_engine(spec.model) else _PYTORCH_SETTINGS
        kinds = guide_kinds(llm)
        self.capabilities = Capabilities(
            sampling=sampling,
            guides=[*kinds],
            continues=[kind for kind in kinds if kind in CONTINUED_KINDS],
        )
        self._judge, self._module = judge, module
        self.context_length, self.slots = _limits(llm.args, spec)
        self._llm = llm
        self._params = module.SamplingParams
        self._has_salt = "cache_salt" in signature(llm.generate_async).parameters
        self._failed = module.llmapi.RequestError  #: concerns a single request
        self._running = 0
        self._has_stats = _STATS_KEPT in module.llmapi.llm_args.TorchLlmArgs.model_fields
        self._kv_use = 0.0

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        salt = {"cache_salt": request.cache_salt} if request.cache_salt else {}
        if salt and not self._has_salt:
            raise EngineError(
                f"TensorRT-LLM {self.version} cannot keep the caches of API keys apart; install a "
                "newer one, or serve it without keys."
            )
        lark = None if request.guide is None else await self._judge.judge(request.guide)
        try:
            result = self._llm.generate_async(
                request.token_ids,
                sampling_params=self._sampling(request, lark),
                streaming=True,
                **salt,
            )
        except ValueError as error:
            raise RequestError(f"TensorRT-LLM: {_reason(error)}.") from error
        except self._failed as error:
            raise EngineError(f"TensorRT-LLM: {_reason(error)}.") from error
        except Exception as error:
            raise _lost(error) from error
        self._running += 1
        count = 0
        try:
            # Every step yields the same object, and its ids grow.
            async for step in result:
                output = step.outputs[0]
                ids = list(output.token_ids[count:])
                scores = scores_of(request, output, count)
                count += len(ids)
                if not step.finished:
                    if ids:
                        yield Delta(ids, scores=scores)
                    continue
                yield Delta(ids, finish=_finish(step, request, count), scores=scores)
                return
            raise EngineError("TensorRT-LLM ended the answer without a finish.")
        except (self._failed, ValueError) as error:
            raise EngineError(f"TensorRT-LLM: {_reason(error)}.") from error
        except DynemoError:
            raise
        except Exception as error:
            raise _lost(error) from error
        finally:
            self._running -= 1
            if not result.finished:
                with suppress(Exception):  # if the engine has ended, there is nothing to abort
                    result.abort()

    def _sampling(self, request: Request, lark: str | None) -> Any:
        """Returns the sampling parameters. `lark` is the guide.

        Stop ids are passed as stop words, not as `end_id`, so that both backends include them in
        the output.
        """
        sampling = request.sampling
        params: dict[str, Any] = {
            "end_id": -1,
            "pad_id": request.stop_ids[0] if request.stop_ids else 0,
            "max_tokens": request.max_tokens,
            "stop_token_ids": request.stop_ids or None,
            "include_stop_str_in_output": True,
            "ignore_eos": request.ignore_eos,
            "detokenize": False,
            "logprobs": request.logprobs,
        }
        if sampling.temperature == 0:  # temperature 0 is not supported; top_k 1 is greedy
            params["top_k"] = 1
        else:
            # Without both of these it would be greedy.
            params |= {
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
            }
        if "seed" in self.capabilities.sampling:
            # Without a seed the runtime takes 0, so the same prompt would always get the same
            # answer.
            named = sampling.seed
            params["seed"] = getrandbits(63) if named is None else named % (1 << 63)
        for name in ("min_p", "presence_penalty", "frequency_penalty"):
            if value := getattr(sampling, name):
                params[name] = value
        if sampling.repetition_penalty != 1:
            params["repetition_penalty"] = sampling.repetition_penalty
        if lark is not None:
            params |= guide_params(self._module, self._llm, lark, request.stop_ids)
        return self._params(**params)

    async def load(self) -> Load:
        """Returns the load.

        Sequences are counted here: its own counts cover one rank's last batch.
        """
        self._check()
        if not self._running:
            self._kv_use = 0.0  # without steps it reports nothing
        elif self._has_stats:
            self._kv_use = _kv_use(await asyncio.to_thread(self._stats), self._kv_use)
        running = min(self._running, self.slots)
        return Load(running, self._running - running, self._kv_use)

    def _check(self) -> None:
        """Ends this process if TensorRT-LLM's processes have failed.

        TensorRT-LLM reports such a failure only with the next answer, so a waiting request would
        wait forever.
        """
        executor = getattr(self._llm, "_executor", None)
        check = getattr(executor, "_handle_background_error", None)
        try:
            if check is not None:
                check()
        except Exception as error:
            _lost(error)

    def _stats(self) -> list[dict[str, Any]]:
        """Returns the statistics of the steps since the last call.

        It blocks on the engine's process.
        """
        try:
            stats: list[dict[str, Any]] = self._llm.get_stats(timeout=0)
        except Exception:  # any exception: the rest of the load is still useful
            return []
        return stats


def _lost(error: Exception) -> EngineLost:
    """Returns an EngineLost, and ends this process shortly after. The runner starts another one.

    TensorRT-LLM shuts down after any failure that concerns more than one request.
    """
    reason = _reason(error)
    asyncio.get_running_loop().call_later(_ERROR_SECONDS, _end, reason)
    return EngineLost(f"TensorRT-LLM has ended: {reason}.")


def _end(reason: str) -> None:
    # Printed like an exception: the runner reports the last one.
    print(f"EngineError: TensorRT-LLM has ended: {reason}.", flush=True)
    os._exit(1)


def _reason(error: Exception) -> str:
    """Returns the first line of an error, without a full stop."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def _kv_use(stats: list[dict[str, Any]], last: float) -> float:
    """Returns the cache use of the newest step that reports it, or else the last known one.

    A long prompt is one step.
    """
    for step in reversed(stats):
        if blocks := step.get("kvCacheStats"):
            return float(blocks["usedNumBlocks"] / max(1, blocks["maxNumBlocks"]))
    return last


def _finish(step: Any, request: Request, count: int) -> Finish:
    reason = step.outputs[0].finish_reason
    if reason not in _REASONS:
        raise EngineError(f'TensorRT-LLM ended the answer with the reason "{reason}".')
    cached = getattr(step, "cached_tokens", 0) or 0
    return Finish(_REASONS[reason], len(request.token_ids), count, cached)


def _limits(args: Any, spec: EngineSpec) -> tuple[int, int]:
    """Returns context length and sequences at once: the start arguments, or else the build's."""
    build = getattr(args, "build_config", None)
    length = args.max_seq_len or getattr(build, "max_seq_len", None) or spec.model_context
    slots = args.max_batch_size or getattr(build, "max_batch_size", None) or 1
    return length, slots


def llm_arguments(spec: EngineSpec, known: list[str]) -> dict[str, Any]:
    """Returns the arguments of `LLM`. `known` are the names that it accepts. Raises UsageError."""
    own = {**spec.extra, **read_options(spec.engine, spec.options, known, see=_SEE)}
    for name in spec.extra:
        if name not in known:
            raise unknown_argument("trtllm", name, known, see=_SEE)
    wanted: dict[str, Any] = {
        "model": spec.model,
        **guide_arguments(spec.model, known),
        "tensor_parallel_size": spec.parallel.tensor,
    }
    if spec.context_length is not None:
        wanted["max_seq_len"] = spec.context_length
    if spec.slots is not None:
        wanted["max_batch_size"] = spec.slots
    if _STATS_KEPT in known:  # the TensorRT backend always has statistics of its last 1000 steps
        wanted |= {"enable_iter_perf_stats": True, _STATS_KEPT: 1}
    return {**wanted, **own}


@asynccontextmanager
async def open_engine(spec: EngineSpec) -> AsyncIterator[TrtLlm]:
    if spec.parallel.nodes > 1 and os.environ.get(_LAUNCHED) != "1":
        raise UsageError(_LAUNCH.format(devices=spec.parallel.tensor))
    module, maker, args = _api(spec)
    arguments = llm_arguments(spec, list(args.model_fields))
    try:
        # On the main thread, as in its own server. Nothing else runs here yet.
        llm = maker(**arguments)
    except Exception as error:
        message = f'TensorRT-LLM could not load "{spec.model}": {_reason(error)}.'
        raise ModelError(message) from error
    try:
        async with open_judge("dynemo.engines.guides.wheel") as judge:
            yield TrtLlm(module, llm, spec, judge)
    finally:
        llm.shutdown()


def _api(spec: EngineSpec) -> tuple[Any, Any, Any]:
    """Returns the module, the class that loads this model, and the class with its arguments."""
    try:
        import tensorrt_llm
        from tensorrt_llm.llmapi import llm_args
    except ImportError as error:
        raise EngineNotInstalled(
            f"The engine trtllm is not installed ({error}). Run `dynemo-run engine install trtllm`."
        ) from error
    if not is_engine(spec.model):
        return tensorrt_llm, tensorrt_llm.LLM, llm_args.TorchLlmArgs
    try:
        from tensorrt_llm._tensorrt_engine import LLM
    except ImportError:
        raise UsageError(
            f"TensorRT-LLM {tensorrt_llm.__version__} no longer reads engine folders. Pass the "
            "checkout, or install version 1.2.x for this engine."
        ) from None
    check_ranks(spec)
    return tensorrt_llm, LLM, llm_args.TrtLlmArgs


async def follow(spec: EngineSpec, on_joined: Callable[[], None]) -> None:
    """Runs a rank above 0 as an MPI process that takes work from its leader."""
    if not any(name in os.environ for name in _MPI_RANK_VARIABLES):
        raise UsageError(_LAUNCH.format(devices=spec.parallel.tensor))
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tensorrt_llm.llmapi.mgmn_worker_node"
    )
    on_joined()  # it loads when its leader requests it, and reports nothing here
    try:
        code = await worker.wait()
    finally:
        if worker.returncode is None:
            worker.terminate()
            await worker.wait()
    if code != 0:
        raise EngineError(f"TensorRT-LLM's worker ended with exit code {code}.")
