"""`out=sglang`: checkouts through SGLang's engine, token ids in and out.

SGLang's schedulers compute in processes of their own, one for each device. Here runs only what
passes requests to them and their ids back, on the host's own event loop.
"""

import asyncio
import gc
import os
import signal
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

from dynemo.engines.guard import start_tracker
from dynemo.engines.sglang.args import prepare, server_args
from dynemo.errors import EngineError, EngineNotInstalled, ModelError, RequestError, Unavailable
from dynemo.messages.answer import Delta, Finish, FinishReason
from dynemo.messages.records import Capabilities, Load
from dynemo.messages.request import Request
from dynemo.messages.spec import EngineSpec

#: A seed is taken by SGLang and does not give the same answer again.
#: Settings that it honours.
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
]
_CAPABILITIES = Capabilities(
    sampling=SETTINGS,
)
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
_BAD_REQUEST, _UNAVAILABLE = 400, 503
_LONGEST = 300  # characters of an error


class SgLang:
    capabilities = _CAPABILITIES

    def __init__(self, engine: Any, limits: tuple[int, int]) -> None:
        import sglang

        self._engine = engine
        self._manager = engine.tokenizer_manager
        self._vocabulary: int = self._manager.model_config.vocab_size
        self.version: str = sglang.__version__
        self.device: str = self._manager.config_value("device")
        self.context_length, self.slots = limits

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        self._check(request.token_ids)
        params = _params(request)
        count = 0
        try:
            outputs = await self._engine.async_generate(
                input_ids=request.token_ids,
                sampling_params=params,
                stream=True,
                # Of one length: what aborts one aborts those that begin as it does, too.
                rid=uuid4().hex,
            )
            async with aclosing(outputs):  # closed before its end, it aborts
                async for output in outputs:
                    ids, told = output["output_ids"], output["meta_info"]
                    if told["finish_reason"] is not None:
                        yield Delta(ids, finish=_finish(told, has_begun=count > 0))
                        return
                    yield Delta(ids, cached_tokens=0 if count else told["cached_tokens"])
                    count += len(ids)
        except ValueError as error:
            raise RequestError(f"SGLang: {error}") from error
        raise EngineError("SGLang ended the answer without a finish.")

    def _check(self, ids: list[int]) -> None:
        """An id that the model has no row for would end the scheduler, and with it everything."""
        if not ids or max(ids) >= self._vocabulary or min(ids) < 0:
            raise RequestError(
                f"The prompt has an id that is none of the model's {self._vocabulary}."
            )

    async def load(self) -> Load:
        """As the schedulers last published it, which each does at its steps and when it falls
        idle."""
        loads = await self._manager.get_loads()
        return Load(
            running=sum(load.num_running_reqs for load in loads),
            waiting=sum(load.num_waiting_reqs for load in loads),
            kv_use=max((load.token_usage for load in loads), default=0.0),
        )


def _params(request: Request) -> dict[str, Any]:
    sampling = request.sampling
    return {
        "max_new_tokens": request.max_tokens,
        "stop_token_ids": request.stop_ids,
        "ignore_eos": request.ignore_eos,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias.items()} or None,
    }


def _finish(told: dict[str, Any], *, has_begun: bool) -> Finish:
    reason = told["finish_reason"]
    if reason["type"] not in _REASONS:
        words = f"SGLang: {reason.get('message') or reason['type']}"
        if reason.get("status_code") == _BAD_REQUEST:
            raise RequestError(words)
        if reason.get("status_code") == _UNAVAILABLE and not has_begun:
            raise Unavailable(words)  # its queue is as full as the user lets it be
        raise EngineError(words)
    return Finish(
        _REASONS[reason["type"]],
        told["prompt_tokens"],
        told["completion_tokens"],
        told["cached_tokens"],
    )


@asynccontextmanager
async def open_engine(spec: EngineSpec) -> AsyncIterator[SgLang]:
    engine = _launch(spec)
    try:
        limits = await _limits(engine)
        # A scheduler has failed, and what it logged says why. SGLang's own handler, which it has
        # set by now, would look for more words for minutes.
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, os._exit, 1)
        yield SgLang(engine, limits)
    finally:
        _end(engine)


def _end(engine: Any) -> None:
    engine.shutdown()
    gc.freeze()  # at its end Python would look for garbage in torch and SGLang for seconds


async def _limits(engine: Any) -> tuple[int, int]:
    """Tokens that one sequence may hold, and sequences at once."""
    (info, *_) = engine._scheduler_init_result.scheduler_infos
    manager = engine.tokenizer_manager
    states = await manager.get_internal_state()
    slots = sum(state["effective_max_running_requests_per_dp"] for state in states)
    return info["max_req_input_len"], slots


def _unlink_queues(engine: Any) -> None:
    """Takes away the names of the memory that ranks share. They all have it open by now, and
    SGLang, which ends its processes with SIGKILL, would leave it behind."""
    for pid in engine.get_all_child_pids():
        for path in Path("/dev/shm").glob(f"sgl_shm_mq_{pid}_*"):
            path.unlink(missing_ok=True)


async def follow(spec: EngineSpec, on_joined: Callable[[], None]) -> None:
    # It would else wait on our event loop, and answer health checks on a port of its own.
    os.environ["SGLANG_BLOCK_NONZERO_RANK_CHILDREN"] = "0"
    engine = _launch(spec)
    # That a scheduler has failed is seen by its end.
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    on_joined()
    try:
        await asyncio.to_thread(engine._scheduler_init_result.block_until_scheduler_exits)
    finally:
        _end(engine)


class _SchedulerFailed(Exception):
    """One of SGLang's processes has told that it failed; its log says why."""


def _scheduler_failed(*_: object) -> NoReturn:
    raise _SchedulerFailed


def _words(error: Exception) -> str:
    """What an error says, on one line without a stop at its end."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rpartition(' ')[0]} .."


def _launch(spec: EngineSpec) -> Any:
    """SGLang's engine; blocks until the model has loaded. Raises ModelError, UsageError.

    On the main thread, which is told with a signal when a scheduler fails; nothing else runs on the
    event loop before an engine is there.
    """
    # What torch compiles at a first request stays for the next start.
    compiled = f"{tempfile.gettempdir()}/torchinductor-{os.getuid()}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", compiled)
    # Where its sockets go, which it leaves behind.
    tempfile.tempdir = os.environ["TMPDIR"] = spec.workdir
    start_tracker()
    try:
        # The options before the engine, which takes half of the time to import.
        arguments = server_args(spec, is_cpu=prepare(spec))
        from sglang.srt.entrypoints.engine import Engine
        from sglang.srt.managers.load_snapshot import shm_path_for
    except ImportError as error:
        raise EngineNotInstalled(
            f"sglang is not installed ({error}); run `dynemo-run engine install sglang`."
        ) from error

    class TokensOnly(Engine):  # type: ignore[misc]
        @classmethod
        def _launch_scheduler_processes(cls, args: Any, ports: Any, *more: Any, **also: Any) -> Any:
            # Which nobody takes away where it fails or is killed.
            name = Path(shm_path_for(ports.instance_id)).name
            resource_tracker.register(f"/{name}", "shared_memory")
            return super()._launch_scheduler_processes(args, ports, *more, **also)

        @classmethod
        def _launch_detokenizer_subprocesses(cls, **_: Any) -> tuple[list[Any], list[str]]:
            """None: a scheduler that was told of no tokenizer answers the engine itself, and the
            detokenizer would only take memory, and time to start."""
            return [], []

    try:
        engine = TokensOnly(**arguments, custom_sigquit_handler=_scheduler_failed)
    except _SchedulerFailed as error:
        raise ModelError(f"SGLang could not load {spec.model}.") from error
    except Exception as error:
        raise ModelError(f"SGLang could not load {spec.model}: {_words(error)}.") from error
    _unlink_queues(engine)
    return engine
