"""The result of one request: an iterator that yields itself for each response."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from tensorrt_llm.executor.utils import RequestError
from tensorrt_llm.sampling_params import SamplingParams


@dataclass(slots=True)
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass(slots=True)
class CompletionOutput:
    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    finish_reason: str | None = None  # stop, length, timeout, cancelled
    stop_reason: int | str | None = None
    _last_token_ids_len: int = field(default=0, init=False, repr=False)

    @property
    def length(self) -> int:
        return len(self.token_ids)

    @property
    def token_ids_diff(self) -> list[int]:
        return self.token_ids[self._last_token_ids_len :]


@dataclass(frozen=True)
class Response:
    """The executor's report on one request after a step."""

    token_ids: list[int]
    is_final: bool = False
    reason: str = ""  # END_ID, STOP_WORDS, LENGTH, CANCELLED
    error: str = ""
    logprobs: dict[int, Logprob] | None = None  #: of its one token


class RequestOutput:
    def __init__(
        self,
        request_id: int,
        prompt_token_ids: list[int],
        params: SamplingParams,
        abort: Callable[[int], None],
    ) -> None:
        self.request_id = request_id
        self.prompt_token_ids = prompt_token_ids
        self.sampling_params = params
        self.outputs = [CompletionOutput(0)]
        self.cached_tokens = 0
        self._abort = abort
        self._aborted = False
        self._done = False
        self._loop = asyncio.get_running_loop()
        self.aqueue: asyncio.Queue[Response] = asyncio.Queue()

    def put(self, response: Response) -> None:
        """Adds a response. It is called in the executor's thread."""
        self._loop.call_soon_threadsafe(self.aqueue.put_nowait, response)

    def abort(self) -> None:
        self._abort(self.request_id)
        self._aborted = True

    def aborted(self) -> bool:
        return self._aborted

    @property
    def finished(self) -> bool:
        return self._done

    def __aiter__(self) -> "RequestOutput":
        return self

    async def __anext__(self) -> "RequestOutput":
        if self._done:
            raise StopAsyncIteration
        self._handle(await self.aqueue.get())
        return self

    def _handle(self, response: Response) -> None:
        output, params = self.outputs[0], self.sampling_params
        self._done = response.is_final
        if response.error:
            raise RequestError(response.error)
        output._last_token_ids_len = len(output.token_ids)
        output.token_ids.extend(response.token_ids)
        if response.logprobs is not None:
            output.logprobs.append(response.logprobs)
        if response.reason == "CANCELLED":
            output.finish_reason = "cancelled"
        elif response.is_final:
            output.finish_reason = {"LENGTH": "length"}.get(response.reason, "stop")
            if response.reason == "STOP_WORDS" and not params.include_stop_str_in_output:
                output.token_ids = output.token_ids[:-1]
