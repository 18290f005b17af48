"""OpenAI's chat wire format as typed structs: what is decoded, what is encoded, what is documented.

Ranges are part of the types, so that decoding checks them and `/openapi.json` shows them. Fields of
OpenAI that are known and not honoured have the type `Unhonoured`: `read.py` refuses every value of
theirs that would change the answer. Decoding refuses any other field as unknown.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from dynemo.api.openai.score_types import ChoiceScores, PromptScores
from dynemo.api.openai.structured import (
    Choices,
    Grammar,
    JsonObject,
    ResponseFormat,
    StructuredOutputs,
    Unhonoured,
)
from dynemo.api.openai.tool_types import (
    AnsweredCall,
    AnsweredFunction,
    CallDelta,
    FunctionCall,
    FunctionDefinition,
    FunctionDelta,
    Name,
    NamedFunction,
    SentBack,
    ToolCall,
    ToolChoiceObject,
    ToolDefinition,
)
from dynemo.limits import (
    CHOICES,
    LOGIT_BIASES,
    LOGPROBS,
    MESSAGES,
    PARTS,
    STOP_CHARACTERS,
    STOP_IDS,
    STOP_STRINGS,
    TOOLS,
)

FinishReason = Literal["stop", "length", "tool_calls", "function_call"]
Role = Literal["system", "developer", "user", "assistant", "tool", "function"]

#: Fields that cannot change the answer: accepted and not used.
_REMARK = Meta(description="Accepted; does not affect the answer.")
Remark = Annotated[str, _REMARK]
AnyRemark = Annotated[Any, _REMARK]

Count = Annotated[int, Meta(ge=1)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
StopString = Annotated[str, Meta(min_length=1, max_length=STOP_CHARACTERS)]
TokenId = Annotated[int, Meta(ge=0)]
Likeliest = Annotated[int, Meta(ge=0, le=LOGPROBS)]
StopReason = Annotated[
    str | int | None, Meta(description="The stop string or token id that ended it; null: an EOS.")
]
Priority = Annotated[
    int,
    Meta(
        ge=-(2**31),
        le=2**31 - 1,
        description="Lower is earlier, among the requests of one client. 0 by default.",
    ),
]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class ContentPart(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One part of a message's content. Parts of type `text` are honoured."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Unhonoured = None
    input_audio: Unhonoured = None
    audio_url: Unhonoured = None
    video_url: Unhonoured = None
    file: Unhonoured = None
    annotations: SentBack = None
    cache_control: SentBack = None
    prompt_cache_breakpoint: SentBack = None


class Message(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One message of the conversation, in the form in which clients send and send back."""

    role: Role
    content: str | Annotated[list[ContentPart], Meta(max_length=PARTS)] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=PARTS)] | None = None
    tool_call_id: Name | None = None
    function_call: FunctionCall | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None
    refusal: str | None = None
    audio: Unhonoured = None
    annotations: SentBack = None
    parsed: SentBack = None
    reasoning_details: SentBack = None
    thinking_blocks: SentBack = None
    provider_specific_fields: SentBack = None
    cache_control: SentBack = None
    images: SentBack = None
    logprobs: SentBack = None


class AnyMessage(Message, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A message in a file: of any role."""

    role: str  # type: ignore[assignment]


class StreamOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    include_usage: bool | None = None
    continuous_usage_stats: Annotated[
        bool | None, Meta(description="Every chunk has the usage so far.")
    ] = None
    include_obfuscation: Unhonoured = None


class ChatRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /v1/chat/completions`. null means the same as a field that is absent."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=MESSAGES)]
    model: Annotated[Name | None, Meta(description="By default the first model served.")] = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1, description="0 or -1: off.")] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=STOP_STRINGS)] | None = None
    seed: Int64 | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100, description="1: off.")] | None = None
    logit_bias: Annotated[dict[TokenId, Bias], Meta(max_length=LOGIT_BIASES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=CHOICES)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[ToolDefinition], Meta(max_length=TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoiceObject | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[FunctionDefinition], Meta(max_length=TOOLS)] | None = None
    function_call: Literal["none", "auto"] | NamedFunction | None = None
    reasoning_effort: Annotated[
        Name | None, Meta(description="none: without thoughts. Else a word that the model knows.")
    ] = None
    max_thinking_tokens: Annotated[int, Meta(ge=0, description="Then it answers.")] | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: JsonObject | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: Grammar | None = None
    structural_tag: JsonObject | None = None
    grammar: Grammar | None = None
    json_schema: JsonObject | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=STOP_IDS)] | None = None
    include_stop_str_in_output: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Likeliest | None = None
    prompt_logprobs: Likeliest | None = None
    best_of: Annotated[int, Meta(ge=1, le=CHOICES, description="The same as `n`.")] | None = None
    priority: Priority | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    user: Remark | None = None
    metadata: Annotated[dict[str, str] | None, _REMARK] = None
    safety_identifier: Remark | None = None
    prediction: AnyRemark = None
    prompt_cache_key: Remark | None = None
    prompt_cache_options: AnyRemark = None
    prompt_cache_retention: Remark | None = None
    service_tier: Remark | None = None
    store: Annotated[bool | None, _REMARK] = None

    audio: Unhonoured = None
    modalities: Unhonoured = None
    moderation: Unhonoured = None
    verbosity: Unhonoured = None
    web_search_options: Unhonoured = None


class PromptTokensDetails(Struct, frozen=True):
    cached_tokens: int


class CompletionTokensDetails(Struct, frozen=True):
    reasoning_tokens: int


class CompletionUsage(Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class AnswerMessage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`reasoning` repeats `reasoning_content`: clients read one or the other."""

    role: Literal["assistant"]
    content: str | None
    refusal: Literal[None]
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[AnsweredCall] | None = None
    function_call: AnsweredFunction | None = None


class Choice(Struct, frozen=True, kw_only=True):
    index: int
    message: AnswerMessage
    logprobs: ChoiceScores | None = None
    finish_reason: FinishReason
    stop_reason: StopReason = None


class ChatCompletion(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    prompt_logprobs: PromptScores | UnsetType = UNSET


class ChunkDelta(Struct, frozen=True, omit_defaults=True):
    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[CallDelta] | None = None
    function_call: FunctionDelta | None = None


class ChunkChoice(Struct, frozen=True, kw_only=True):
    index: int
    delta: ChunkDelta
    logprobs: ChoiceScores | None = None
    finish_reason: FinishReason | None
    stop_reason: StopReason = None


class ChatCompletionChunk(Struct, frozen=True, kw_only=True):
    """One event of a stream. Written from a template in `write.py`; this is its documentation."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None


class EmbeddingRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /v1/embeddings`. `input`: a text, texts, token ids, or lists of these."""

    input: str | list[Any]
    model: Name | None = None
    encoding_format: Literal["float", "base64"] | None = None
    priority: Priority | None = None
    dimensions: Unhonoured = None
    user: Remark | None = None


class Embedding(Struct, frozen=True, kw_only=True):
    """`embedding` in base64 is 32-bit floats, little-endian."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class Model(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "dynemo"
    context_length: int


class ModelList(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[Model]


class ErrorDetail(Struct, frozen=True, kw_only=True):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Struct, frozen=True):
    error: ErrorDetail
