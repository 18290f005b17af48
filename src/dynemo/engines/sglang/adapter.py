"""`out=sglang`: checkouts in SGLang's engine, with token ids in and out.

SGLang's schedulers compute in their own processes, one per device. This process only passes
requests and ids, on the host's own event loop.
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

from dynemo.engines.compiled import keep_compiled_code
from dynemo.engines.guard import start_tracker
from dynemo.engines.guides.judge import GuideJudge, open_judge
from dynemo.engines.sglang.args import prepare, server_args
from dynemo.engines.sglang.guides import guide_kinds, run_scheduler
from dynemo.engines.sglang.scores import scores_of, wanted_scores
from dynemo.errors import EngineError, EngineNotInstalled, ModelError, RequestError, Unavailable
from dynemo.messages.answer import Delta, Finish, FinishReason
from dynemo.messages.records import Capabilities, Load
from dynemo.messages.request import CONTINUED_KINDS, GuideKind, Request
from dynemo.messages.spec import EngineSpec

#: The settings that it supports. SGLang accepts a seed, but does not reproduce the answer.
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
    "prompt_logprobs",
]
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
_BAD_REQUEST, _UNAVAILABLE = 400, 503
_LONGEST = 300  # characters of an error


class SgLang:
    def __init__(
        self, engine: Any, limits: tuple[int, int], kinds: list[GuideKind], judge: GuideJudge
    ) -> None:
        """`kinds` are those of the guides that it follows."""
        import sglang

        self.capabilities = Capabilities(
            sampling=SETTINGS,
            guides=[*kinds],
            continues=[kind for kind in kinds if kind in CONTINUED_KINDS],
        )
        self._judge = judge
        self._engine = engine
        self._manager = engine.tokenizer_manager
        self._vocabulary: int = self._manager.model_config.vocab_size
        self.version: str = sglang.__version__
        self.device: str = self._manager.config_value("device")
        self.context_length, self.slots = limits

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        self._check(request.token_ids)
        lark = None if request.guide is None else await self._judge.judge(request.guide)
        params = _params(request, lark)
        count = 0
        try:
            outputs = await self._engine.async_generate(
                input_ids=request.token_ids,
                sampling_params=params,
                stream=True,
                # All ids have the same length: an abort also aborts the requests whose ids start
                # with the given one.
                rid=uuid4().hex,
                cache_salt=request.cache_salt or None,
                **wanted_scores(request),
            )
            async with aclosing(outputs):  # closing it early aborts the request
                async for output in outputs:
                    ids, info = output["output_ids"], output["meta_info"]
                    scores = scores_of(request, info, is_first=count == 0)
                    if (last := _own_stop(request, ids)) is not None:
                        finish = _stopped(info, count + last + 1)
                        yield Delta(ids[: last + 1], finish=finish, scores=scores)
                        return
                    if info["finish_reason"] is not None:
                        finish = _finish(info, has_begun=count > 0)
                        yield Delta(ids, finish=finish, scores=scores)
                        return
                    cached = 0 if count else info["cached_tokens"]
                    yield Delta(ids, cached_tokens=cached, scores=scores)
                    count += len(ids)
        except ValueError as error:
            raise RequestError(f"SGLang: {_reason(error)}.") from error
        raise EngineError("SGLang ended the answer without a finish.")

    def _check(self, ids: list[int]) -> None:
        """Raises RequestError for an id without a row in the model.

        The id would end the scheduler.
        """
        if not ids or max(ids) >= self._vocabulary or min(ids) < 0:
            raise RequestError(
                "The prompt has a token id that is out of range. Valid ids are 0 to "
                f"{self._vocabulary - 1}."
            )

    async def load(self) -> Load:
        """Returns the load that the schedulers last published.

        They do so at their steps and when idle.
        """
        loads = await self._manager.get_loads()
        return Load(
            running=sum(load.num_running_reqs for load in loads),
            waiting=sum(load.num_waiting_reqs for load in loads),
            kv_use=max((load.token_usage for load in loads), default=0.0),
        )


def _params(request: Request, lark: str | None) -> dict[str, Any]:
    sampling = request.sampling
    return {
        "max_new_tokens": request.max_tokens,
        "stop_token_ids": request.stop_ids,
        "ignore_eos": request.ignore_eos,
        "ebnf": lark,  # SGLang passes it on to llguidance
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias.items()} or None,
    }


def _own_stop(request: Request, ids: list[int]) -> int | None:
    """Returns where a stop id of the client is. SGLang ignores these, too, if it ignores EOS."""
    if not (request.ignore_eos and request.stop_ids):
        return None
    return next((at for at, token_id in enumerate(ids) if token_id in request.stop_ids), None)


def _stopped(info: dict[str, Any], count: int) -> Finish:
    return Finish("stop", info["prompt_tokens"], count, info["cached_tokens"])


def _finish(info: dict[str, Any], *, has_begun: bool) -> Finish:
    reason = info["finish_reason"]
    if reason["type"] not in _REASONS:
        text = str(reason.get("message") or reason["type"])
        message = f"SGLang: {text.rstrip('.')}."
        if reason.get("status_code") == _BAD_REQUEST:
            raise RequestError(message)
        if reason.get("status_code") == _UNAVAILABLE and not has_begun:
            raise Unavailable(message)  # its queue has reached the user's limit
        raise EngineError(message)
    return Finish(
        _REASONS[reason["type"]],
        info["prompt_tokens"],
        info["completion_tokens"],
        info["cached_tokens"],
    )


@asynccontextmanager
async def open_engine(spec: EngineSpec) -> AsyncIterator[SgLang]:
    engine = _launch(spec)
    try:
        limits = await _limits(engine)
        # A scheduler has failed, and its log has the reason. SGLang's own handler, which is set by
        # now, would search for more details for minutes.
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, os._exit, 1)
        kinds = guide_kinds(spec.model)
        async with open_judge("dynemo.engines.guides.wheel") as judge:
            yield SgLang(engine, limits, kinds, judge)
    finally:
        _end(engine)


def _end(engine: Any) -> None:
    engine.shutdown()
    gc.freeze()  # at exit Python would search for garbage in torch and SGLang for seconds


async def _limits(engine: Any) -> tuple[int, int]:
    """Returns the tokens per sequence and the number of sequences at the same time."""
    (info, *_) = engine._scheduler_init_result.scheduler_infos
    manager = engine.tokenizer_manager
    states = await manager.get_internal_state()
    slots = sum(state["effective_max_running_requests_per_dp"] for state in states)
    return info["max_req_input_len"], slots


def _unlink_queues(engine: Any) -> None:
    """Unlinks the shared memory of the ranks, which have all opened it by now.

    SGLang ends its processes with SIGKILL, so nobody else would remove it.
    """
    for pid in engine.get_all_child_pids():
        for path in Path("/dev/shm").glob(f"sgl_shm_mq_{pid}_*"):
            path.unlink(missing_ok=True)


async def follow(spec: EngineSpec, on_joined: Callable[[], None]) -> None:
    # Otherwise it would block our event loop, and serve health checks on its own port.
    os.environ["SGLANG_BLOCK_NONZERO_RANK_CHILDREN"] = "0"
    engine = _launch(spec)
    # The end of a scheduler shows that it has failed.
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    on_joined()
    try:
        await asyncio.to_thread(engine._scheduler_init_result.block_until_scheduler_exits)
    finally:
        _end(engine)


class _SchedulerFailed(Exception):
    """A process of SGLang has reported a failure. Its log has the reason."""


def _scheduler_failed(*_: object) -> NoReturn:
    raise _SchedulerFailed


def _reason(error: Exception) -> str:
    """Returns an error's message on one line without a full stop, shortened if it is long."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rpartition(' ')[0]} .."


def _launch(spec: EngineSpec) -> Any:
    """Returns SGLang's engine once the model has loaded. Raises ModelError or UsageError.

    It blocks the main thread, where a signal reports a failed scheduler. Nothing else runs on the
    event loop before the engine exists.
    """
    keep_compiled_code(spec.workdir)
    # The folder for its sockets, which it does not remove.
    tempfile.tempdir = os.environ["TMPDIR"] = spec.workdir
    start_tracker()
    try:
        # The options are checked first, because the import of the engine takes half of the time.
        arguments = server_args(spec, is_cpu=prepare(spec))
        from sglang.srt.entrypoints.engine import Engine
        from sglang.srt.managers.load_snapshot import shm_path_for
    except ImportError as error:
        raise EngineNotInstalled(
            f"The engine sglang is not installed ({error}). Run `dynemo-run engine install sglang`."
        ) from error

    class TokensOnly(Engine):  # type: ignore[misc]
        run_scheduler_process_func = staticmethod(run_scheduler)

        @classmethod
        def _launch_scheduler_processes(cls, args: Any, ports: Any, *more: Any, **also: Any) -> Any:
            # Nobody else removes this memory if the scheduler fails or is killed.
            name = Path(shm_path_for(ports.instance_id)).name
            resource_tracker.register(f"/{name}", "shared_memory")
            return super()._launch_scheduler_processes(args, ports, *more, **also)

        @classmethod
        def _launch_detokenizer_subprocesses(cls, **_: Any) -> tuple[list[Any], list[str]]:
            """Starts no detokenizer, which would only cost memory and time.

            Without a tokenizer a scheduler answers the engine directly.
            """
            return [], []

    try:
        engine = TokensOnly(**arguments, custom_sigquit_handler=_scheduler_failed)
    except _SchedulerFailed as error:
        raise ModelError(f'SGLang could not load "{spec.model}".') from error
    except Exception as error:
        raise ModelError(f'SGLang could not load "{spec.model}": {_reason(error)}.') from error
    _unlink_queues(engine)
    return engine
