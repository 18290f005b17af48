"""Finds out which messages a chat template can read, by rendering small conversations with it.

A template does not declare which shapes of messages it takes. Searching its syntax tree for loops
over a message's content only guesses. On 68 real templates, such a search wrongly accepts eight:
they loop over a user's parts, but print a system message's parts as a Python list or keep only the
first. It misses five that read parts inside a macro. Rendering a probe for each role and checking
the text gives the right answer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from dynemo.errors import RequestError
from dynemo.prompt.errors import RenderTooLong

Message = Mapping[str, Any]

# Words that no template prints by itself.
_FIRST = "Quixotic zephyrs"
_SECOND = "jumbled vortexes"

_USER = {"role": "user", "content": "Hello"}
_ASSISTANT = {"role": "assistant", "content": "Hi"}

_TOOL = {
    "type": "function",
    "function": {
        "name": "probe",
        "description": "A probe",
        "parameters": {
            "type": "object",
            "properties": {"wanted": {"type": "string", "description": "A word"}},
            "required": ["wanted"],
        },
    },
}


class RenderMessages(Protocol):
    def __call__(
        self, messages: Sequence[Message], *, tools: Sequence[Any] | None = None
    ) -> str: ...


class TemplateProbe:
    """Tests one template. Results are computed on first use and cached. Threads may share it."""

    def __init__(self, render: RenderMessages) -> None:
        self._render = render
        self._known: dict[tuple[str, bool], bool] = {}

    def takes_parts(self, role: str, *, has_tools: bool) -> bool:
        """Whether this role's content may be a list of text parts.

        True if the template prints every part, and prints one part like a string. Also true if it
        prints parts but no strings at all.
        """
        if role not in ("system", "user", "assistant"):
            return False
        return self._cached(
            f"parts of {role}", has_tools, lambda: self._tries_parts(role, has_tools)
        )

    def takes_system(self) -> bool:
        """Whether the template prints a system message."""
        return self._cached(
            "system", False, lambda: _FIRST in self._try(_with_content("system", _FIRST), False)
        )

    def takes_argument_objects(self, *, has_tools: bool) -> bool:
        """Whether the arguments of a tool call must be an object rather than JSON text.

        Most templates print them with `tojson` or loop over their items; a few join the text.
        """
        return self._cached("arguments", has_tools, lambda: self._tries_objects(has_tools))

    def _cached(self, question: str, has_tools: bool, answer: Callable[[], bool]) -> bool:
        key = (question, has_tools)
        if key not in self._known:
            self._known[key] = answer()
        return self._known[key]

    def _tries_parts(self, role: str, has_tools: bool) -> bool:
        first, second = {"type": "text", "text": _FIRST}, {"type": "text", "text": _SECOND}
        plain = self._try(_with_content(role, _FIRST), has_tools)
        one = self._try(_with_content(role, [first]), has_tools)
        if _FIRST not in plain:
            return _FIRST in one
        both = self._try(_with_content(role, [first, second]), has_tools)
        return one == plain and 0 <= both.find(_FIRST) < both.find(_SECOND)

    def _tries_objects(self, has_tools: bool) -> bool:
        value = "probe value"
        text = self._try(_with_arguments({"probe_key": value}), has_tools)
        if value in text and "{'probe_key'" not in text:
            return True
        return value not in self._try(_with_arguments(f'{{"probe_key": "{value}"}}'), has_tools)

    def _try(self, messages: Sequence[Message], has_tools: bool) -> str:
        try:
            return self._render(messages, tools=[_TOOL] if has_tools else None)
        except RenderTooLong:
            raise  # that says nothing about the shape of the messages
        except RequestError:
            return ""


def _with_content(role: str, content: object) -> list[Message]:
    message = {"role": role, "content": content}
    if role == "system":
        return [message, _USER]
    if role == "assistant":
        return [_USER, message, _USER]
    return [message]


def _with_arguments(arguments: object) -> list[Message]:
    call = {
        "id": "probe1234",  # nine letters and digits: Mistral's templates refuse other ids
        "type": "function",
        "function": {"name": "probe", "arguments": arguments},
    }
    return [
        _USER,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "probe1234", "name": "probe", "content": "done"},
        _ASSISTANT,
        _USER,
    ]
