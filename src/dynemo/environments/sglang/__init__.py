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
    has_tensor_parallel=True,
    has_nodes=True,
    has_torch=True,
)
