"""Guided answers in TensorRT-LLM's PyTorch backend, which follows llguidance's grammars.

It was written against these sources of NVIDIA/TensorRT-LLM:

    0fccc5b9   _torch/pyexecutor/grammar_matcher.py
    000a01de   sampling_params.py
"""

from typing import Any

from dynemo.engines.trtllm.folder import is_engine
from dynemo.messages.request import GuideKind

KINDS: list[GuideKind] = [
    "json_schema", "regex", "choice", "grammar", "lark", "structural_tag",
]  # fmt: skip
_SETTING = "guided_decoding_backend"
_BACKEND = "llguidance"


def guide_arguments(model: str, known: list[str]) -> dict[str, Any]:
    """Returns our defaults of the arguments on which guided answers depend."""
    if is_engine(model) or _SETTING not in known:
        return {"skip_tokenizer_init": True}
    # llguidance needs the vocabulary.
    return {"skip_tokenizer_init": False, _SETTING: _BACKEND}


def guide_kinds(llm: Any) -> list[GuideKind]:
    """Returns the kinds of guide that a loaded engine can follow."""
    is_ours = getattr(llm.args, _SETTING, None) == _BACKEND
    return KINDS if is_ours and getattr(llm, "tokenizer", None) is not None else []


def guide_params(module: Any, llm: Any, lark: str, stop_ids: list[int]) -> dict[str, Any]:
    """Returns the parameters of a guided answer.

    At its end llguidance allows the tokenizer's own token only, so that ends it as well.
    """
    end = getattr(llm.tokenizer, "eos_token_id", None)
    return {
        "guided_decoding": module.llmapi.GuidedDecodingParams(grammar=lark),
        "stop_token_ids": [*stop_ids, *([end] if isinstance(end, int) else [])] or None,
    }
