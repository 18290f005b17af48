"""llama.cpp, in the build of xllamacpp."""

from dynemo.environments.entry import GGUF, EngineEntry

ENTRY = EngineEntry(
    "llama_cpp",
    "llama.cpp; the default for a GGUF file",
    package="xllamacpp",
    distributions=("xllamacpp",),
    aliases=("llamacpp", "llama.cpp"),
    logprobs=True,
    prefix_cache="per key",
    reads=GGUF,
    gives="text",
    guides=("json_schema", "regex", "choice", "grammar", "lark"),
    tasks=("chat", "embed"),
    exact_options=("--flash-attn", "off", "--cache-type-k", "f32", "--cache-type-v", "f32"),
)
