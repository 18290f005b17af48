"""Formats say how a model's answer marks reasoning and tool calls. They are plain data.

A format travels in the model card, so that all ingresses read an answer in the same way.
"""

from typing import Literal

from msgspec import Struct

#: The ways to write a call. Each has a reader in `syntax/`.
#:
#: `json`: an object with name and arguments, or a list of such objects.
#: `named`: the name, a separator, and the arguments as a JSON object.
#: `xml`: a tag for each parameter, typed by the tool's schema.
#: `pairs`: a tag for each key and each value, typed by the tool's schema.
#: `python`: calls of Python functions with keyword arguments.
#: `braces`: the name, and an object without quotes around its keys.
#: `harmony`: channels, of which some have a recipient.
Syntax = Literal["json", "named", "xml", "pairs", "python", "braces", "harmony"]


class ReasoningFormat(Struct, frozen=True, omit_defaults=True):
    """How an answer marks the model's thoughts. The first mark of each kind is the usual one."""

    name: str
    opens: tuple[str, ...]
    closes: tuple[str, ...]
    #: The answer is a list of channels, as in `syntax/harmony.py`.
    is_channels: bool = False
    #: The answer begins inside the block, although the prompt does not open it.
    is_open: bool = False
    #: A mark that starts a tool call ends the block. Otherwise a call inside the block is a quote.
    ends_at_calls: bool = False
    #: Marks around the answer's content, which are left out.
    wrappers: tuple[str, ...] = ()


class Tag(Struct, frozen=True, omit_defaults=True):
    """A tag that holds a name, as `<parameter=NAME>VALUE</parameter>`."""

    open: str = ""  #: up to the name
    name_end: str = ""  #: directly after the name
    end: str = ""  #: of the opening tag, if attributes may stand before it
    close: str = ""
    attributes: str = ""  #: before the end, as a model writes them; with `{type}` or `{is_text}`


class ToolFormat(Struct, frozen=True, omit_defaults=True):
    """How an answer marks tool calls."""

    name: str
    syntax: Syntax
    opens: tuple[str, ...] = ()  #: marks that start a call, or a list of calls
    sections: tuple[str, ...] = ()  #: marks before the first call
    closes: tuple[str, ...] = ()  #: marks that end a call or a section; a call may lack them
    #: The characters that start a call without a mark, if the content starts with them.
    bare: str = ""
    #: The answer starts inside a call's mark, because the prompt ends with it.
    is_open: bool = False
    content_name: str = ""  #: `named`: a name that starts content instead of a call
    name_keys: tuple[str, ...] = ("name",)
    argument_keys: tuple[str, ...] = ("arguments", "parameters")
    id_keys: tuple[str, ...] = ("id",)
    is_name_key: bool = False  #: `{"get_weather": {...}}`
    separators: tuple[str, ...] = ()  #: `named`: the text between the name and the arguments
    id_mark: str = ""  #: `named`: the text between the name and the call's id
    is_id_first: bool = False  #: `named`: the id stands before the name, and `id_mark` between them
    prefixes: tuple[str, ...] = ()  #: of a name, which are left out
    has_index: bool = False  #: `named`: `:0` after the name; name and index are the call's id
    fence: str = ""  #: `named`: text before the arguments, after a line with the name
    call_tag: Tag = Tag()  #: `xml`: around a call
    value_tag: Tag = Tag()  #: `xml`, `pairs`: around a value
    key_tag: Tag = Tag()  #: `pairs`: around a key
    #: A newline stands on each side of a value (`xml`), or of a call's JSON (`json`).
    has_lines: bool = False
    is_list: bool = False  #: `json`: the model writes a list of objects
    wraps_each: bool = False  #: `xml`: each call has a section of its own
    #: `braces`: the text around a string.
    quote: str = ""
    joint: str = "\n"  #: between two calls


class Format(Struct, frozen=True, omit_defaults=True):
    """How to read the answers of one model."""

    reasoning: ReasoningFormat | None = None
    tools: ToolFormat | None = None
    why_no_tools: str = ""  #: a sentence, if tools are refused
    #: The chat template does not show tools to the model. `write.tools_prompt` does, as a system
    #: message.
    needs_prompt: bool = False
    leaves_out_calls: bool = False  #: the chat template does not show calls of the history either
    #: A variable of the chat template that must hold the tools, too.
    tools_variable: str = ""
    marks: tuple[str, ...] = ()  #: all texts that must reach the parser, even as control tokens


class SaidText(Struct, frozen=True):
    text: str


class SaidReasoning(Struct, frozen=True):
    text: str


class CallStarted(Struct, frozen=True):
    """A tool call. Its arguments follow."""

    id: str | None  #: None: the format has no ids, or the model gave none
    name: str


class CallArguments(Struct, frozen=True):
    """A fragment of the JSON of the last call's arguments."""

    text: str


Part = SaidText | SaidReasoning | CallStarted | CallArguments


def needed_marks(format: Format, *, wants_calls: bool, wants_reasoning: bool) -> tuple[str, ...]:
    """Returns the marks that must reach the parser of one answer."""
    marks: tuple[str, ...] = ()
    reasoning, tools = format.reasoning, format.tools
    if reasoning is not None and (wants_reasoning or wants_calls):
        marks += reasoning.opens + reasoning.closes + reasoning.wrappers
    if tools is not None and wants_calls:
        marks += tool_marks(tools)
    return tuple(dict.fromkeys(marks))


def tool_marks(tools: ToolFormat) -> tuple[str, ...]:
    """Returns all texts that a format of tools reads as marks."""
    tags = (tools.call_tag, tools.value_tag, tools.key_tag)
    parts = [part for tag in tags for part in (tag.open, tag.end, tag.close)]
    marks = (*tools.sections, *tools.opens, *tools.closes, *tools.separators, tools.id_mark)
    return tuple(dict.fromkeys(mark for mark in (*marks, *parts, tools.quote) if mark))
