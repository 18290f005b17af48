"""Renders a call with a chat template, to see how the model's answers look."""

from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any, Protocol

from dynemo.answer.formats.format import CallArguments, CallStarted, Format
from dynemo.answer.formats.parser import AnswerParser
from dynemo.answer.formats.schema import same_json
from dynemo.errors import DynemoError
from dynemo.messages.ask import Tool

Message = Mapping[str, Any]

#: Names and values that no template prints by itself.
NAME = "quixotic_probe"
ARGUMENTS: dict[str, Any] = {"zephyr": "jumbled vortex", "count": 40961}

#: Variables of templates that some models read instead of `tools`.
_VARIABLES = ("xml_tools",)

_MARK_ENDS = (">", "]", "\n")

_USER: Message = {"role": "user", "content": "Waltz, nymph"}

TOOL = Tool(
    NAME,
    {
        "type": "function",
        "function": {
            "name": NAME,
            "description": "A probe",
            "parameters": {
                "type": "object",
                "properties": {
                    "zephyr": {"type": "string", "description": "A word"},
                    "count": {"type": "integer", "description": "A number"},
                },
                "required": ["zephyr"],
            },
        },
    },
)


class Template(Protocol):
    """The part of `prompt.template.ChatTemplate` that is used here."""

    @property
    def sources(self) -> Mapping[str, str]: ...

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        kwargs: Mapping[str, Any] | None = None,
    ) -> str: ...


class CallProbe:
    """One template and what it prints. A rendering that fails is empty text."""

    def __init__(self, template: Template) -> None:
        self._template = template
        source = "\n".join(template.sources.values())
        #: The template's own variable for tools, if it does not read the usual one.
        self.variable = next((name for name in _VARIABLES if name in source), "")
        #: The prompt for one question, with a tool.
        self.prompt = self._try([_USER], is_prompt=True)
        self.shows_tools = NAME in self.prompt
        #: The template prints something for a call, but not its name.
        self.hides_calls = False
        self.one = self._answer(1)
        self.two = self._answer(2)
        self.plain = self._said({"role": "assistant", "content": NAME})

    def _answer(self, count: int) -> str:
        """Returns how an answer with so many calls looks, from where the model begins to write."""
        for content in ("", None):
            for arguments in (ARGUMENTS, dumps(ARGUMENTS)):
                calls = [_call(f"probe123{number}", arguments) for number in range(count)]
                message = {"role": "assistant", "content": content, "tool_calls": calls}
                text = self._said(message)
                if text.count(NAME) >= count and "{'zephyr'" not in text:
                    return text
                without = self._said({"role": "assistant", "content": content})
                self.hides_calls |= bool(text and without) and text != without
        return ""

    def _said(self, message: Message) -> str:
        return model_part(self.prompt, self._try([_USER, message], is_prompt=False))

    def _try(self, messages: Sequence[Message], *, is_prompt: bool) -> str:
        try:
            return self._template.render(
                messages,
                tools=[TOOL.definition],
                add_generation_prompt=is_prompt,
                kwargs={self.variable: [TOOL.definition]} if self.variable else None,
            )
        except DynemoError:
            return ""


def model_part(prompt: str, text: str) -> str:
    """Returns the part of a rendered conversation that the model has written after the prompt.

    The prompt may open or close a block of reasoning that the text does not have. Then they part
    at the end of the mark before it.
    """
    pairs = enumerate(zip(prompt, text, strict=False))
    end = next((at for at, (one, other) in pairs if one != other), min(len(prompt), len(text)))
    if end < len(prompt):
        end = max(text.rfind(sign, 0, end) for sign in _MARK_ENDS) + 1
    return text[end:]


def _call(id: str, arguments: object) -> dict[str, Any]:
    # Nine letters and digits: Mistral's templates refuse other ids.
    function = {"name": NAME, "arguments": arguments}
    return {"id": id, "type": "function", "function": function}


def parses_back(format: Format, probe: CallProbe) -> bool:
    """Whether the calls that a template renders parse back to themselves."""
    return _parses(format, probe.one, 1) and (not probe.two or _parses(format, probe.two, 2))


def _parses(format: Format, text: str, count: int) -> bool:
    parser = AnswerParser(format, [TOOL])
    parts = [*parser.feed(text), *parser.end()]
    calls = [part for part in parts if isinstance(part, CallStarted)]
    arguments = [part.text for part in parts if isinstance(part, CallArguments)]
    return len(calls) == len(arguments) == count and all(
        same_json(each, ARGUMENTS) for each in arguments
    )
