"""Values that cross a boundary: from an input to the pipeline, and from the pipeline to an engine.

Frozen, typed, and encoded with msgpack where they travel. `Ask` is what somebody wants, in words;
`Request` is what an engine gets, in token ids; `Delta` and `Finish` come back from the engine;
`Piece` is what the input that asked is given.
"""

from typing import Any, Literal
from uuid import uuid4

from msgspec import Struct, field

#: Why a sequence ended. `stop`: an EOS id or a stop string; `length`: the budget or context.
FinishReason = Literal["stop", "length"]


class Sampling(Struct, frozen=True, omit_defaults=True):
    """How the next token is chosen. The defaults are plain sampling at temperature 1."""

    temperature: float = 1.0  #: 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  #: 0 is off
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}


class Guide(Struct, frozen=True, array_like=True):
    """What an answer's text must be: an instance of a JSON schema, or a sentence of a grammar."""

    kind: Literal["json_schema", "grammar"]
    text: str  #: the schema as JSON, or the grammar in GBNF


class Ask(Struct, frozen=True, kw_only=True):
    """One chat request, before a model has seen it. None means: not said, the default decides."""

    messages: list[dict[str, Any]] = []
    model: str | None = None
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    max_tokens: int | None = None
    n: int | None = None
    stop: list[str] | None = None
    ignore_eos: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    guide: Guide | None = None


class Request(Struct, frozen=True, kw_only=True):
    """One sequence to generate. Always carries both token ids and the text they came from."""

    id: str
    token_ids: list[int]
    prompt: str
    max_tokens: int  #: at least 1; prompt and answer together fit the context
    is_unbounded: bool = False  #: nobody has named `max_tokens`: it is what the context leaves
    sampling: Sampling
    stop_ids: list[int] = []  #: EOS ids; the sequence ends after the first of them
    ignore_eos: bool = False  #: `stop_ids` is empty and the engine's own EOS is off as well
    guide: Guide | None = None
    embed: bool = False  #: not an answer is wanted but the prompt's embedding
    #: As they were sent, but for their contents: each is one text. For an engine that takes them.
    messages: list[dict[str, Any]] = []
    continued: int = 0  #: of `token_ids`, at their end: answered by another instance before
    traceparent: str = ""  #: see `trace.py`; empty where the input knows of no trace


class Finish(Struct, frozen=True, array_like=True):
    """How a sequence ended, in the engine's own count."""

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int  #: every token generated, a final EOS included
    cached_tokens: int = 0  #: of the prompt, found in the engine's cache


class Delta(Struct, frozen=True, array_like=True):
    """What decoding steps added to one sequence: ids, or texts where the engine gives text.

    The last delta of a sequence has `finish`; nothing follows it.
    """

    token_ids: list[int] = []
    texts: list[str] = []  #: one for each token; empty for one that does not end a character
    finish: Finish | None = None
    cached_tokens: int = 0  #: of the prompt; said once, where the engine knows before its finish
    embedding: bytes = (
        b""  #: with the finish, where one was asked for: 32-bit floats, little-endian
    )


class Load(Struct, frozen=True, array_like=True):
    """What an engine is busy with now."""

    running: int = 0  #: sequences being computed
    waiting: int = 0  #: sequences in its queue
    kv_use: float = 0.0  #: share of the KV cache in use, 0 to 1


class FinalDelta(Delta, frozen=True, array_like=True):
    """The last delta of a sequence, as it travels: a worker adds what it is busy with now."""

    load: Load | None = None


class Capabilities(Struct, frozen=True, kw_only=True):
    """What an engine can honour. A request that needs more is refused before the engine sees it."""

    tasks: tuple[str, ...] = ("chat",)  #: `chat`, `embed`
    takes: Literal["tokens", "text", "messages"] = "tokens"
    gives: Literal["tokens", "text"] = "tokens"
    #: Names of `Sampling` fields (and `ignore_eos`) that it honours.
    sampling: list[str] = []
    guides: list[str] = []  #: kinds of `Guide` that it can follow


class Instance(Struct, frozen=True, kw_only=True):
    """Who answers: one loaded engine. Said by the engine host once it can take requests."""

    id: str
    engine: str  #: its name on the command line
    version: str
    device: str
    context_length: int  #: tokens that one sequence may hold
    slots: int  #: sequences that it computes at once
    capabilities: Capabilities


class Piece(Struct, frozen=True):
    """What one choice of an answer gained. `tokens` counts the ids it stands for."""

    index: int
    text: str
    tokens: int
    finish: Finish | None


class Hello(Struct, frozen=True):
    """The first frame's body on the socket to an engine host."""

    protocol: int
    instance: Instance


class Greeting(Struct, frozen=True):
    """The first frame's body between a worker and an ingress, in both directions."""

    protocol: int
    instance: str  #: the worker's id, whoever says it
    key: bytes  #: the key of the side that reads this
    answer_key: bytes = b""  #: of an ingress that dials: the key for the HELLO that answers


class Envelope(Struct, frozen=True, kw_only=True):
    """One request on its way from an ingress to the worker that shall answer it."""

    key: bytes  #: the ingress's connection key
    addresses: list[str]  #: HOST:PORT where it awaits the answer, in the order to try them
    loopback: str = ""  #: one more, for a worker whose host id is `host`
    host: str = ""
    stream: int
    token: bytes  #: opens that stream, once
    request: bytes = b""  #: a Request; empty: it follows on the connection, as REQUEST


class Failure(Struct, frozen=True):
    """An error on its way to the other process: one class of `errors.py`, by name."""

    error: str
    message: str
    param: str | None = None
    trace: str = ""


class Parallel(Struct, frozen=True, kw_only=True):
    """How one engine is spread over devices and machines."""

    tensor: int = 1  #: devices that each layer is split over, on all nodes together
    nodes: int = 1
    rank: int = 0  #: of this node; 0 leads and takes the requests, the others follow
    leader: str = ""  #: HOST:PORT where the nodes meet; empty where a launcher joins them


class EngineSpec(Struct, frozen=True, kw_only=True):
    """What an engine host is told at its start."""

    engine: str
    instance: str = field(default_factory=lambda: uuid4().hex)  #: its id, started again or not
    argument: str = ""  #: `text` of echo:text; the path of out=FILE.py
    model: str  #: a GGUF's or a checkout's path; empty where the engine needs none
    workdir: str  #: a private folder for sockets and the like; removed with the host
    context_length: int | None = None  #: None: the engine's choice, at most the model's
    model_bytes: int = 0  #: of its files; 0 where nobody has counted
    model_context: int = 0  #: what the model was made for; 0 where its files do not say
    kv_bytes_per_token: int = 0  #: of a 16-bit cache; 0 where its files do not say
    slots: int | None = None  #: sequences at once that the input can use; None: many
    embeds: bool = False  #: its files say that it was made for embeddings
    vocabulary: int = 0  #: rows of its embedding: ids below it are safe; 0 where nobody knows
    words: str = ""  #: the checkout of --model-config, with tokenizer and template; empty: none
    parallel: Parallel = Parallel()
    options: list[str] = []  #: what came after `--`
    extra: dict[str, Any] = {}  #: of --extra-engine-args, in the engine's own names
    verbosity: int = 0  #: how often -v was given


class InstanceRecord(Struct, frozen=True, kw_only=True):
    """One instance, as discovery holds it, under its worker's lease."""

    instance: Instance
    namespace: str
    component: str
    endpoint: str
    model: str  #: the name that requests give
    identity: str  #: of the model card, hex; instances of one model name share it
    card: str  #: where the card lies among the blobs: its hash, hex
    host: str  #: an id of the worker's machine, so that loopback is used on that machine alone
    addresses: list[str] = []  #: HOST:PORT to dial for `--request-plane tcp`; else empty
    loopback: str = ""  #: one more address, for who has the same `host`
    key: str = ""  #: hex; with it a dialling ingress proves that it has read this record
    started: float  #: unix seconds
    pid: int
