"""OpenAI's wire format of tools: definitions, choices and calls, as they are sent and answered."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from dynemo.limits import ARGUMENTS_CHARACTERS, NAME_CHARACTERS, TOOLS

Name = Annotated[str, Meta(max_length=NAME_CHARACTERS)]
Arguments = Annotated[str, Meta(max_length=ARGUMENTS_CHARACTERS)]
_FUNCTION = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "description": {"type": "string"},
        "parameters": {"type": "object", "description": "A JSON schema of an object."},
        "strict": {"type": "boolean"},
    },
}
#: Definitions stay as they were sent: the chat template prints them, in the order of their keys.
FunctionDefinition = Annotated[dict[str, Any], Meta(extra_json_schema=_FUNCTION)]
ToolDefinition = Annotated[
    dict[str, Any],
    Meta(
        extra_json_schema={
            "type": "object",
            "required": ["type", "function"],
            "properties": {"type": {"const": "function"}, "function": _FUNCTION},
        }
    ),
]
#: What clients send back of an answer, of this server or of another. It says nothing to the model.
SentBack = Annotated[Any, Meta(description="Accepted in a message that is sent back; ignored.")]


class FunctionCall(Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    arguments: Arguments | dict[str, Any] | None = ""
    parsed_arguments: SentBack = None


class ToolCall(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A call in an earlier message. `index` is left over where a client gathered a stream."""

    id: Name | None = None
    type: Literal["function"] | None = "function"
    function: FunctionCall
    index: int | None = None
    provider_specific_fields: SentBack = None
    extra_content: SentBack = None
    cache_control: SentBack = None


class NamedFunction(Struct, frozen=True, forbid_unknown_fields=True):
    name: Name


class NamedTool(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One function, by its name."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Meta(min_length=1, max_length=TOOLS)]


class ToolChoiceObject(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`function` with type `function`, `allowed_tools` with type `allowed_tools`."""

    type: Literal["function", "allowed_tools"]
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class AnsweredFunction(Struct, frozen=True):
    name: str
    arguments: str  #: as the model wrote them; usually the text of a JSON object


class AnsweredCall(Struct, frozen=True, kw_only=True):
    id: str
    type: Literal["function"] = "function"
    function: AnsweredFunction


class FunctionDelta(Struct, frozen=True, omit_defaults=True):
    name: str | None = None
    arguments: str | None = None


class CallDelta(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The first delta of a call has its id and its name, the others a part of its arguments."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta
