from tensorrt_llm.executor.utils import RequestError
from tensorrt_llm.sampling_params import GuidedDecodingParams

__all__ = ["GuidedDecodingParams", "RequestError"]
