"""The echo engine, a part of this package: for tests and load."""

from dynemo.environments.entry import CHECKOUT, GGUF, EngineEntry

ENTRY = EngineEntry(
    "echo",
    "the prompt's own tokens, for tests; echo:text gives the last message",
    arguments=("text",),
    variables=("DYNEMO_TOKEN_ECHO_DELAY_MS",),
    reads=GGUF | CHECKOUT,
)
