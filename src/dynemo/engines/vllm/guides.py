"""Gives vLLM a tokenizer and llguidance, which it needs for guided answers."""

import sys
from typing import Any

from dynemo.messages.request import GuideKind
from dynemo.messages.spec import EngineSpec

KINDS: list[GuideKind] = [
    "json_schema", "regex", "choice", "grammar", "lark", "structural_tag",
]  # fmt: skip
_BACKEND = "guidance"


def has_tokenizer(spec: EngineSpec) -> bool:
    """Whether vLLM can load the model's tokenizer, and llguidance can use it.

    Prints why not.
    """
    from vllm.tokenizers.registry import cached_get_tokenizer
    from vllm.v1.structured_output.backend_guidance import GuidanceBackend

    try:
        # With the arguments of vLLM, which then finds it in its cache.
        tokenizer = cached_get_tokenizer(
            spec.model,
            runner_type="generate",
            tokenizer_mode="auto",
            revision=None,
            trust_remote_code=False,
        )
    except Exception as error:  # a tokenizer is a program of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
    else:
        if GuidanceBackend.is_tokenizer_supported(tokenizer):
            return True
        reason = "llguidance does not support its type"
    print(
        f"Warning: vLLM gives no guided answers, because it cannot use the tokenizer: {reason}.",
        file=sys.stderr,
        flush=True,
    )
    return False


def backend_config() -> Any:
    """Returns the default of `--structured-outputs-config`."""
    from vllm.config import StructuredOutputsConfig

    return StructuredOutputsConfig(backend=_BACKEND)


def guide_kinds(config: Any) -> list[GuideKind]:
    """Returns the kinds of guide that an engine with this configuration can follow."""
    is_ours = config.structured_outputs_config.backend == _BACKEND
    return KINDS if is_ours and not config.model_config.skip_tokenizer_init else []


def end_token(engine: Any) -> list[int]:
    """Returns the only token that llguidance allows at the end of an answer, if there is one."""
    tokenizer = engine.renderer.tokenizer
    end = getattr(tokenizer, "eos_token_id", None)
    return [end] if isinstance(end, int) else []


def structured_outputs(lark: str) -> Any:
    from vllm.sampling_params import StructuredOutputsParams

    return StructuredOutputsParams(grammar=lark)
