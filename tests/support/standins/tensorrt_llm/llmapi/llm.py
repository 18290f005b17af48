"""The LLM classes. Their executor follows a rule instead of computing a model."""

import json
import os
import random
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import llguidance

from tensorrt_llm.executor.result import Logprob, RequestOutput, Response
from tensorrt_llm.llmapi.llm_args import TorchLlmArgs, TrtLlmArgs
from tensorrt_llm.sampling_params import SamplingParams

_BLOCK = 8  # tokens_per_block
_STEP_SECONDS = 0.002
_ANSWER = 12  # ids before the end-of-sequence token


def rule(prompt: list[int], at: int, eos: int) -> int:
    """Returns the likeliest id at position `at` of the answer, which repeats itself in the end."""
    return eos if at == _ANSWER else (sum(prompt) + 7 * min(at, _ANSWER + 9)) % 900 + 20


def sample(prompt: list[int], at: int, eos: int, params: SamplingParams, seed: int) -> int:
    """Returns a random id, or the likeliest one if the settings exclude all others."""
    likeliest = rule(prompt, at, eos)
    is_sure = params.top_k == 1 or (params.top_p or 1) < 1e-3 or (params.min_p or 0) >= 1
    if not params._greedy_decoding and not is_sure:
        return random.Random(f"{seed} {at}").randrange(20, 920)
    is_penalised = params.presence_penalty or params.frequency_penalty or params.repetition_penalty
    return likeliest + at % 9 if is_penalised and at > _ANSWER else likeliest


def log_probabilities(chosen: int, count: int) -> dict[int, Logprob]:
    """Returns the `count` likeliest ids, which begin with 1, and the chosen id behind them."""
    likeliest = {rank: Logprob(-0.5 * rank, rank) for rank in range(1, count + 1)}
    return {**likeliest, chosen: Logprob(-chosen / 100, None)}


@dataclass
class _Sequence:
    result: RequestOutput
    made: int = 0
    matcher: Any = None  #: of a guided answer
    is_cancelled: bool = False


class _Executor:
    """Steps up to `slots` sequences together, in a thread."""

    def __init__(
        self, slots: int, max_seq_len: int, vocab_size: int, eos: int, seed: int | None, kept: int
    ) -> None:
        self._slots, self._max_seq_len = slots, max_seq_len
        self._vocab_size, self._eos = vocab_size, eos
        self._seed = seed  # for requests without a seed; None: a different one each time
        self._sequences: dict[int, _Sequence] = {}
        self._seen: set[tuple[int, ...]] = set()
        self._lock = threading.Lock()
        self._blocks = slots * -(-max_seq_len // _BLOCK)
        self._steps = 0
        self._stats: deque[dict[str, Any]] = deque(maxlen=kept)
        self._is_over = False
        self._error_queue: Queue[Exception] = Queue()
        self.vocabulary: Any = None  #: for guided answers
        self.ends: list[int] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, result: RequestOutput) -> None:
        with self._lock:
            self._sequences[result.request_id] = _Sequence(result)

    def abort_request(self, request_id: int) -> None:
        with self._lock:
            if request_id in self._sequences:
                self._sequences[request_id].is_cancelled = True

    def take_stats(self) -> list[dict[str, Any]]:
        with self._lock:
            stats = list(self._stats)
            self._stats.clear()
        return stats

    def is_shutdown(self) -> bool:
        return self._is_over

    def _handle_background_error(self) -> None:
        if not self._error_queue.empty():
            error = self._error_queue.get()
            self.shutdown()
            raise error

    def shutdown(self) -> None:
        self._is_over = True
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over:
            if self._steps == int(os.environ.get("TRTLLM_STANDIN_LAST_STEP", "-1")):
                self._error_queue.put(RuntimeError("Executor worker died.\nAt a place in it."))
                return
            with self._lock:
                waiting = list(self._sequences.items())
            cancelled = [item for item in waiting if item[1].is_cancelled]
            for request_id, sequence in [*cancelled, *waiting[: self._slots]]:
                if request_id in self._sequences:
                    response = self._step(sequence)
                    if response.is_final:
                        with self._lock:
                            del self._sequences[request_id]
                    sequence.result.put(response)
            if waiting:
                self._keep_stats(min(len(waiting), self._slots))
            time.sleep(_STEP_SECONDS)

    def _step(self, sequence: _Sequence) -> Response:
        result = sequence.result
        params, prompt = result.sampling_params, result.prompt_token_ids
        if sequence.is_cancelled:
            return Response([], True, "CANCELLED")
        if len(prompt) >= self._max_seq_len:
            return Response([], True, error="The prompt is longer than max_seq_len.")
        if any(not 0 <= token_id < self._vocab_size for token_id in prompt):
            return Response([], True, error="Token ID is out of range of the vocabulary.")
        if sequence.made == 0:
            self._look_up(result)
        seed = params.seed if params.seed is not None else self._seed
        seed = result.request_id if seed is None else seed
        if params.guided_decoding is not None:
            token_id = self._guided(sequence, random.Random(f"{seed} {sequence.made}"))
        else:
            token_id = sample(prompt, sequence.made, self._eos, params, seed)
        sequence.made += 1
        told = None if params.logprobs is None else log_probabilities(token_id, params.logprobs)
        if not params.ignore_eos and token_id == params.end_id:
            return Response([token_id], True, "END_ID", logprobs=told)
        if token_id in (params.stop_token_ids or []):
            return Response([token_id], True, "STOP_WORDS", logprobs=told)
        if sequence.made == params.max_tokens:
            return Response([token_id], True, "LENGTH", logprobs=told)
        return Response([token_id], logprobs=told)

    def _guided(self, sequence: _Sequence, choose: random.Random) -> int:
        """Returns a token that the grammar allows. It prefers to end what is open."""
        params = sequence.result.sampling_params
        if sequence.matcher is None:
            grammar = llguidance.LLMatcher.grammar_from_lark(params.guided_decoding.grammar)
            sequence.matcher = llguidance.LLMatcher(self.vocabulary, grammar)
        mask = sequence.matcher.compute_bitmask()
        allowed = [i for i in range(self._vocab_size) if mask[i // 8] >> i % 8 & 1]
        ends = [token_id for token_id in self.ends if token_id in allowed]
        if ends and (params._greedy_decoding or choose.random() < 0.5):
            token_id = ends[0]
        else:
            token_id = allowed[0] if params._greedy_decoding else choose.choice(allowed)
        sequence.matcher.try_consume_tokens([token_id])
        return token_id

    def _keep_stats(self, scheduled: int) -> None:
        with self._lock:
            active = [sequence for sequence in self._sequences.values() if sequence.made]
            lengths = [len(each.result.prompt_token_ids) + each.made for each in active]
            used = sum(-(-length // _BLOCK) for length in lengths)
            self._stats.append(
                {
                    "iter": self._steps,
                    "numActiveRequests": len(active),
                    "numQueuedRequests": len(self._sequences) - len(active),
                    "maxNumActiveRequests": self._slots,
                    "kvCacheStats": {
                        "maxNumBlocks": self._blocks,
                        "freeNumBlocks": self._blocks - used,
                        "usedNumBlocks": used,
                        "tokensPerBlock": _BLOCK,
                    },
                    "inflightBatchingStats": {"numScheduledRequests": scheduled},
                }
            )
        self._steps += 1

    def _look_up(self, result: RequestOutput) -> None:
        prompt = result.prompt_token_ids
        for end in range(_BLOCK, len(prompt), _BLOCK):
            block = tuple(prompt[:end])
            if block in self._seen:
                result.cached_tokens = end
            self._seen.add(block)


class BaseLLM:
    _kind: Any
    _seed: int | None = None

    def __init__(
        self,
        model: str | Path,
        tokenizer: Any = None,
        tokenizer_mode: str = "auto",
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        for key in kwargs:
            if key not in self._kind.model_fields:
                raise ValueError(f"{type(self).__name__} got invalid argument: {key}")
        devices = int(os.environ.get("TRTLLM_STANDIN_DEVICES", "1"))
        if tensor_parallel_size > devices:
            raise RuntimeError(
                f"Only {devices} GPUs are available, but {tensor_parallel_size} are required."
            )
        self.tokenizer: Any = None
        self.args = self._arguments(Path(model), kwargs)
        config = json.loads((Path(model) / "config.json").read_text())
        words = config.get("pretrained_config", config)
        eos = words.get("eos_token_id", -1)
        eos = eos[0] if isinstance(eos, list) else eos
        slots = self.args.max_batch_size or self.args.build_config.max_batch_size
        length = self.args.max_seq_len or self.args.build_config.max_seq_len
        self._executor: _Executor | None = _Executor(
            slots, length, words["vocab_size"], eos, self._seed, self.args.stats_kept
        )
        if not skip_tokenizer_init:
            self.tokenizer = SimpleNamespace(eos_token_id=eos)
            file = str(Path(model) / "tokenizer.json")
            vocabulary = llguidance.LLTokenizer(file, n_vocab=words["vocab_size"], eos_token=eos)
            self._executor.vocabulary = vocabulary
            closing = [vocabulary.tokenize_str(mark)[-1] for mark in '"}]']
            self._executor.ends = [eos, *closing]
        self._count = 0
        print("[TensorRT-LLM] stand-in arguments:", json.dumps({
            "class": type(self).__name__, "tensor_parallel_size": tensor_parallel_size, **kwargs,
        }), flush=True)  # fmt: skip

    def _arguments(self, model: Path, kwargs: dict[str, Any]) -> Any:
        raise NotImplementedError

    def generate_async(
        self,
        inputs: list[int],
        sampling_params: SamplingParams | None = None,
        lora_request: Any = None,
        prompt_adapter_request: Any = None,
        streaming: bool = False,
    ) -> RequestOutput:
        if self._executor is None or self._executor.is_shutdown():
            raise RuntimeError("LLM is shutting down")
        params = sampling_params or SamplingParams()
        if params.end_id is None and self.tokenizer is None:
            raise ValueError(
                "tokenizer is required to reset end_id if it is None, or you can explicitly "
                "specify the end_id for sampling_params"
            )
        self._check_arguments(len(inputs), params)
        self._count += 1
        result = RequestOutput(self._count, inputs, params, self._executor.abort_request)
        self._executor.submit(result)
        return result

    def _check_arguments(self, prompt_len: int, params: SamplingParams) -> None:
        raise NotImplementedError

    def get_stats(self, timeout: float | None = 2) -> list[dict[str, Any]]:
        if os.environ.get("TRTLLM_STANDIN_STATS") == "failing":
            raise RuntimeError("Statistics worker failed")
        assert self._executor is not None
        start = time.time()
        while True:
            stats = self._executor.take_stats()
            if stats or timeout is None or time.time() - start >= timeout:
                return stats
            time.sleep(0.1)

    def shutdown(self) -> None:
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None


class _TorchLLM(BaseLLM):
    _kind = TorchLlmArgs

    def _arguments(self, model: Path, kwargs: dict[str, Any]) -> Any:
        config = json.loads((model / "config.json").read_text())
        if config["architectures"] != ["LlamaForCausalLM"]:
            raise ValueError(
                f"Unknown architecture for AutoModelForCausalLM: {config['architectures'][0]}"
            )
        return SimpleNamespace(
            max_seq_len=kwargs.get("max_seq_len") or config["max_position_embeddings"],
            max_batch_size=kwargs.get("max_batch_size", 2048),
            max_num_tokens=kwargs.get("max_num_tokens", 8192),
            guided_decoding_backend=kwargs.get("guided_decoding_backend"),
            # It drops the oldest record only once there are more than `max_stats_len`.
            stats_kept=kwargs.get("max_stats_len", 1000) + 1
            if kwargs.get("enable_iter_perf_stats")
            else 0,
        )

    def _check_arguments(self, prompt_len: int, params: SamplingParams) -> None:
        if prompt_len > self.args.max_num_tokens:
            raise ValueError(
                f"The sum of prompt length ({prompt_len}), query length (0) should not exceed "
                f"max_num_tokens ({self.args.max_num_tokens})"
            )


class _TrtLLM(BaseLLM):
    _kind = TrtLlmArgs
    _seed = 0

    def _arguments(self, model: Path, kwargs: dict[str, Any]) -> Any:
        build = json.loads((model / "config.json").read_text())["build_config"]
        return SimpleNamespace(
            max_seq_len=kwargs.get("max_seq_len"),
            max_batch_size=kwargs.get("max_batch_size"),
            max_num_tokens=kwargs.get("max_num_tokens"),
            build_config=SimpleNamespace(**build),
            stats_kept=1000,  # the limit of the C++ runtime, which it does not report
        )

    def _check_arguments(self, prompt_len: int, params: SamplingParams) -> None:
        most = self.args.build_config.max_seq_len
        if prompt_len + params.max_tokens > most:
            raise ValueError(
                f"The sum of prompt length ({prompt_len}) and query length (0) max_tokens "
                f"({params.max_tokens}) should not exceed max_seq_len ({most})"
            )
