"""A stand-in for TensorRT-LLM. See README.md beside this package."""

from tensorrt_llm.llmapi.llm import _TorchLLM as LLM
from tensorrt_llm.sampling_params import SamplingParams

__version__ = "1.2.0+standin"
__all__ = ["LLM", "SamplingParams"]
