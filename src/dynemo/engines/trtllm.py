"""`out=trtllm`: TensorRT-LLM through its LLM API, token ids in and out.

    a folder with rank0.engine   the TensorRT backend, which versions up to 1.2.x have
    a checkout                   the PyTorch backend

Written against the sources of NVIDIA/TensorRT-LLM at 4c05a748 (`llmapi/llm.py`), a678b91a
(`executor/result.py`), 000a01de (`sampling_params.py`), 21c8b6d4 (`defaultDecodingParams.h`) and
2d06866f (`executor/rpc_worker_mixin.py`, where its statistics come from).
"""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import getrandbits
from typing import Any

from dynemo.engines.options import read_options
from dynemo.errors import EngineError, EngineNotInstalled, ModelError, RequestError, UsageError
from dynemo.messages import (
    Capabilities,
    Delta,
    EngineSpec,
    Finish,
    FinishReason,
    Load,
    Request,
)

#: Of the PyTorch backend's sampler.
_SAMPLING = ["temperature", "top_p", "top_k", "ignore_eos"]
#: The C++ runtime's, which runs engine folders, has more.
_ENGINE_SAMPLING = [
    *_SAMPLING,
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
]
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
#: Of the PyTorch backend, since January 2026: statistics are fetched from the engine when they are
#: asked for. Before, each step's went through a queue that was read five times a second: what came
#: out was old, and what did not stayed in memory.
_STATS_KEPT = "max_stats_len"
#: Set by `trtllm-llmapi-launch`, which joins the nodes.
_LAUNCHED = "TLLM_SPAWN_PROXY_PROCESS"
_LAUNCH = (
    "TensorRT-LLM joins its nodes through MPI; start it on all of them with its launcher: "
    "mpirun -n {devices} trtllm-llmapi-launch dynemo-run ... (or srun --mpi=pmix)."
)
_MPI_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")


class TrtLlm:
    device = "cuda"

    def __init__(self, module: Any, llm: Any, spec: EngineSpec) -> None:
        self.version = str(module.__version__)
        is_engine = _is_engine(spec.model)
        self.capabilities = Capabilities(sampling=_ENGINE_SAMPLING if is_engine else _SAMPLING)
        self.context_length, self.slots = _limits(llm.args, spec)
        self._llm = llm
        self._params = module.SamplingParams
        self._running = 0
        self._has_stats = _STATS_KEPT in module.llmapi.llm_args.TorchLlmArgs.model_fields
        self._kv_use = 0.0

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        try:
            result = self._llm.generate_async(
                request.token_ids, sampling_params=self._sampling(request), streaming=True
            )
        except ValueError as error:
            raise RequestError(f"TensorRT-LLM: {error}") from error
        self._running += 1
        count = 0
        try:
            # One and the same object every time, whose ids grow.
            async for step in result:
                output = step.outputs[0]
                ids = list(output.token_ids[count:])
                count += len(ids)
                if not step.finished:
                    if ids:
                        yield Delta(ids)
                    continue
                yield Delta(ids, finish=_finish(step, request, count))
                return
            raise EngineError("TensorRT-LLM ended the answer without a finish.")
        except RuntimeError as error:
            raise EngineError(f"TensorRT-LLM: {error}") from error
        finally:
            self._running -= 1
            if not result.finished:
                result.abort()

    def _sampling(self, request: Request) -> Any:
        """Stop ids travel as stop words and not as `end_id`, so that they are part of the output
        on both backends."""
        sampling = request.sampling
        said: dict[str, Any] = {
            "end_id": -1,
            "pad_id": request.stop_ids[0] if request.stop_ids else 0,
            "max_tokens": request.max_tokens,
            "stop_token_ids": request.stop_ids or None,
            "include_stop_str_in_output": True,
            "ignore_eos": request.ignore_eos,
            "detokenize": False,
        }
        if sampling.temperature == 0:  # it knows no such temperature: greedy is the first of one
            said["top_k"] = 1
        else:
            # Without a word on either it would be greedy.
            said |= {
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
            }
        if "seed" in self.capabilities.sampling:
            # Without one its runtime takes 0: the same prompt had the same answer every time.
            named = sampling.seed
            said["seed"] = getrandbits(63) if named is None else named % (1 << 63)
        for name in ("min_p", "presence_penalty", "frequency_penalty"):
            if value := getattr(sampling, name):
                said[name] = value
        if sampling.repetition_penalty != 1:
            said["repetition_penalty"] = sampling.repetition_penalty
        return self._params(**said)

    async def load(self) -> Load:
        """The sequences are counted here: its own counts are of one rank's last batch."""
        if not self._running:
            self._kv_use = 0.0  # it makes no steps, and so tells nothing
        elif self._has_stats:
            self._kv_use = _kv_use(await asyncio.to_thread(self._stats), self._kv_use)
        running = min(self._running, self.slots)
        return Load(running, self._running - running, self._kv_use)

    def _stats(self) -> list[dict[str, Any]]:
        """Of its steps since the last call. Blocks, as the engine is another process."""
        try:
            stats: list[dict[str, Any]] = self._llm.get_stats(timeout=0)
        except Exception:  # of many kinds; that it cannot tell is no reason not to say the rest
            return []
        return stats


def _kv_use(stats: list[dict[str, Any]], last: float) -> float:
    """Of the newest step that tells it, else as last known: a long prompt is one step."""
    for step in reversed(stats):
        if blocks := step.get("kvCacheStats"):
            return float(blocks["usedNumBlocks"] / max(1, blocks["maxNumBlocks"]))
    return last


def _finish(step: Any, request: Request, count: int) -> Finish:
    said = step.outputs[0].finish_reason
    if said not in _REASONS:
        raise EngineError(f"TensorRT-LLM ended the answer: {said}.")
    cached = getattr(step, "cached_tokens", 0) or 0
    return Finish(_REASONS[said], len(request.token_ids), count, cached)


def _is_engine(model: str) -> bool:
    return os.path.exists(os.path.join(model, "rank0.engine"))


def _limits(args: Any, spec: EngineSpec) -> tuple[int, int]:
    """Context length, and sequences at once: as it was started, else as it was built."""
    build = getattr(args, "build_config", None)
    length = args.max_seq_len or getattr(build, "max_seq_len", None) or spec.model_context
    slots = args.max_batch_size or getattr(build, "max_batch_size", None) or 1
    return length, slots


def llm_arguments(spec: EngineSpec, known: list[str]) -> dict[str, Any]:
    """What `LLM` gets; `known` are the names that it takes. Raises UsageError."""
    own = {**spec.extra, **read_options(spec.engine, spec.options, known)}
    for name in spec.extra:
        if name not in known:
            raise UsageError(f"trtllm has no argument {name!r}, which --extra-engine-args gives.")
    wanted: dict[str, Any] = {
        "model": spec.model,
        "skip_tokenizer_init": True,
        "tensor_parallel_size": spec.parallel.tensor,
    }
    if spec.context_length is not None:
        wanted["max_seq_len"] = spec.context_length
    if spec.slots is not None:
        wanted["max_batch_size"] = spec.slots
    if _STATS_KEPT in known:  # the TensorRT backend always has statistics, of its last 1000 steps
        wanted |= {"enable_iter_perf_stats": True, _STATS_KEPT: 1}
    return {**wanted, **own}


@asynccontextmanager
async def open_engine(spec: EngineSpec) -> AsyncIterator[TrtLlm]:
    if spec.parallel.nodes > 1 and os.environ.get(_LAUNCHED) != "1":
        raise UsageError(_LAUNCH.format(devices=spec.parallel.tensor))
    module, maker, args = _api(spec)
    arguments = llm_arguments(spec, list(args.model_fields))
    try:
        # On the main thread, as its own server does; nothing else runs here yet.
        llm = maker(**arguments)
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"TensorRT-LLM could not load {spec.model}: {said[0]}") from error
    try:
        yield TrtLlm(module, llm, spec)
    finally:
        llm.shutdown()


def _api(spec: EngineSpec) -> tuple[Any, Any, Any]:
    """The module, the class that loads this model, and the class that lists its arguments."""
    try:
        import tensorrt_llm
        from tensorrt_llm.llmapi import llm_args
    except ImportError as error:
        raise EngineNotInstalled(
            f"trtllm is not installed ({error}); run `dynemo-run engine install trtllm`."
        ) from error
    if not _is_engine(spec.model):
        return tensorrt_llm, tensorrt_llm.LLM, llm_args.TorchLlmArgs
    try:
        from tensorrt_llm._tensorrt_engine import LLM
    except ImportError:
        raise UsageError(
            f"TensorRT-LLM {tensorrt_llm.__version__} reads no engine folders any more; "
            "give it the checkout, or install version 1.2.x for this engine."
        ) from None
    _check_ranks(spec)
    return tensorrt_llm, LLM, llm_args.TrtLlmArgs


def _check_ranks(spec: EngineSpec) -> None:
    """An engine folder is built for so many devices."""
    ranks = len(list(Path(spec.model).glob("rank*.engine")))
    if ranks != spec.parallel.tensor:
        raise UsageError(
            f"{spec.model} was built for {ranks} devices: give --tensor-parallel-size {ranks}."
        )


async def follow(spec: EngineSpec, on_joined: Callable[[], None]) -> None:
    """A rank above 0 waits for work from its leader, as a process of MPI's."""
    if not any(name in os.environ for name in _MPI_RANKS):
        raise UsageError(_LAUNCH.format(devices=spec.parallel.tensor))
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tensorrt_llm.llmapi.mgmn_worker_node"
    )
    on_joined()  # it loads when its leader asks it to, and tells nobody here
    try:
        code = await worker.wait()
    finally:
        if worker.returncode is None:
            worker.terminate()
            await worker.wait()
    if code != 0:
        raise EngineError(f"TensorRT-LLM's worker ended with exit code {code}.")
