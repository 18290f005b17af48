"""The types of the fields that restrict the answer's text."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Unhonoured = Annotated[
    Any, Meta(description="Not honoured yet: only a value that changes nothing is accepted.")
]
#: A JSON object, or its text.
JsonObject = dict[str, Any] | str
Grammar = Annotated[str, Meta(description="In GBNF or Lark.")]
Choices = Annotated[list[str], Meta(min_length=1)]


class JsonSchema(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`strict` false is honoured as true: the answer always fits the schema."""

    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`grammar` is not OpenAI's: a grammar in GBNF or Lark. `structural_tag` is vLLM's.
    `schema`, with type `json_object`, is llama.cpp's."""

    type: Literal["text", "json_object", "json_schema", "grammar", "structural_tag"]
    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None
    grammar: str | None = None
    structures: list[dict[str, Any]] | None = None
    triggers: list[str] | None = None


class StructuredOutputs(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """vLLM's way to restrict an answer. One of the first six is set."""

    json: JsonObject | None = None
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: JsonObject | None = None
    disable_any_whitespace: Annotated[
        bool | None, Meta(description="By default JSON has no white space.")
    ] = None
    disable_additional_properties: Unhonoured = None
    whitespace_pattern: Unhonoured = None
    disable_fallback: Annotated[
        bool | None, Meta(description="Accepted; does not affect the answer.")
    ] = None
