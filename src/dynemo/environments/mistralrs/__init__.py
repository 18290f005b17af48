"""mistral.rs."""

from dynemo.environments.entry import CHECKOUT, GGUF, EngineEntry

ENTRY = EngineEntry(
    "mistralrs",
    "mistral.rs; the default for a checkout",
    package="mistralrs",
    distributions=("mistralrs", "mistralrs-cuda"),
    logprobs=True,
    prefix_cache="off with keys",
    reads=GGUF | CHECKOUT,
    takes="text",
    gives="text",
    guides=("json_schema", "regex", "choice", "lark"),
)
