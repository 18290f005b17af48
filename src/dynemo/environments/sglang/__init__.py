"""SGLang."""

from dynemo.environments.entry import CHECKOUT, EngineEntry

ENTRY = EngineEntry(
    "sglang",
    "SGLang; checkouts",
    package="sglang",
    distributions=("sglang",),
    logprobs=True,
    prefix_cache="per key",
    reads=CHECKOUT,
    guides=("json_schema", "regex", "choice", "grammar", "lark", "structural_tag"),
    has_tensor_parallel=True,
    has_nodes=True,
    has_torch=True,
)
