"""TensorRT-LLM."""

from dynemo.environments.entry import CHECKOUT, EngineEntry

ENTRY = EngineEntry(
    "trtllm",
    "TensorRT-LLM; checkouts and its own engine folders",
    package="tensorrt_llm",
    distributions=("tensorrt-llm",),
    logprobs=True,
    prefix_cache="per key",
    reads=CHECKOUT | {"engine"},
    guides=("json_schema", "regex", "choice", "grammar", "lark", "structural_tag"),
    has_tensor_parallel=True,
    has_nodes=True,
    has_launcher=True,
    has_torch=True,
)
