"""The names of the arguments. The original has pydantic models instead."""

import os

_BOTH = (
    "model", "tokenizer", "tokenizer_mode", "skip_tokenizer_init", "trust_remote_code",
    "tensor_parallel_size", "dtype", "revision", "tokenizer_revision", "max_batch_size",
    "max_seq_len", "max_num_tokens", "kv_cache_config", "enable_chunked_prefill", "gpus_per_node",
    "pipeline_parallel_size", "stream_interval",
)  # fmt: skip


_IS_OLD = os.environ.get("TRTLLM_STANDIN_STATS") == "old"  # versions before January 2026
_STATS = ("enable_iter_perf_stats",) if _IS_OLD else ("enable_iter_perf_stats", "max_stats_len")


class TorchLlmArgs:
    model_fields = dict.fromkeys((*_BOTH, *_STATS, "attn_backend", "guided_decoding_backend"))


class TrtLlmArgs:
    model_fields = dict.fromkeys((*_BOTH, "build_config", "workspace", "batching_type"))
