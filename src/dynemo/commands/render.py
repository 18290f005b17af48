"""`dynemo-run render`: the exact prompt of a conversation, without an engine."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec import DecodeError

from dynemo.api.openai.read import read_turns
from dynemo.errors import RequestError, UsageError
from dynemo.foreign import decode_any_json
from dynemo.prompt.control.render import Rendered
from dynemo.prompt.control.texts import ControlTexts
from dynemo.prompt.errors import RenderTooLong
from dynemo.prompt.render import (
    Prompt,
    RenderInput,
    render_as_given,
    render_prompt,
    tokenize_prompt,
)
from dynemo.prompt.template import ChatTemplate
from dynemo.serving.rendering import render_apart
from dynemo.spelling import quoted, unknown
from dynemo.tokenizers.base import Tokenizer

_FIELDS: dict[str, tuple[type, str]] = {
    "messages": (list, "a list of messages"),
    "tools": (list, "a list of tools"),
    "documents": (list, "a list of documents"),
    "add_generation_prompt": (bool, "true or false"),
    "continue_final_message": (bool, "true or false"),
    "chat_template_kwargs": (dict, "an object"),
}


class Renderer:
    """Conversations in JSON to prompts.

    `tools` and `kwargs` (of `--tools FILE` and `--kwargs JSON`) are defaults for a conversation
    without its own. `adapt`: render the prompt that a server would send to its engine; false gives
    the messages to the template untouched, as transformers does. `control`: the tokens that no text
    of a conversation may become; None parses all texts.
    """

    def __init__(
        self,
        template: ChatTemplate,
        tokenizer: Tokenizer,
        *,
        tools: list[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        adapt: bool = True,
        control: ControlTexts | None = None,
    ) -> None:
        self._control = control
        self._adapt = adapt
        self._template = template
        self._tokenizer = tokenizer
        self._defaults = {"tools": tools, "chat_template_kwargs": kwargs}

    def render_one(self, value: object) -> Prompt:
        """The prompt of one conversation: a list of messages, or an object that has `messages`.

        Raises RequestError.
        """
        if isinstance(value, list):
            value = {"messages": value}
        messages, chat = _conversation(value, self._defaults)
        given = None if self._adapt else messages
        if self._adapt:
            chat = replace(chat, turns=read_turns(messages))
        chat = replace(chat, control=self._control)
        return tokenize_prompt(self._rendered(chat, given), self._tokenizer)

    def _rendered(self, chat: RenderInput, messages: list[Any] | None) -> Rendered:
        try:
            if messages is None:
                return render_prompt(self._template, chat)
            return render_as_given(self._template, messages, chat)
        except RenderTooLong:
            return render_apart(self._template, chat, messages)

    def render_lines(self, lines: Iterable[bytes]) -> Iterator[str]:
        """Yields a line of JSON for each line: the prompt and its token ids, or the error.

        Skips blank lines. Escapes everything outside ASCII, because some readers end a line at
        U+2028.
        """
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                prompt = self.render_one(_parse_line(line, number))
            except RequestError as error:
                yield json.dumps({"error": str(error)})
            else:
                yield json.dumps({"prompt": prompt.text, "token_ids": prompt.token_ids})


def is_lines(path: Path) -> bool:
    """Whether the file of `--messages` has one conversation a line."""
    return path.suffix.lower() in (".jsonl", ".ndjson")


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of the file, read one at a time. Raises UsageError at once for a missing file."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"Cannot read {quoted(str(path))}: {error.strerror or error}.") from None

    def lines() -> Iterator[bytes]:
        with file:
            yield from file

    return lines()


def read_json(path: Path) -> object:
    """The value in a JSON file. Raises UsageError."""
    try:
        return decode_any_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"Cannot read {quoted(str(path))}: {error.strerror or error}.") from None
    except DecodeError as error:
        raise UsageError(f"{quoted(str(path))} is not valid JSON: {error}.") from None


def read_tools(path: Path) -> list[Any]:
    """The list of tools in the file of `--tools`. Raises UsageError."""
    value = read_json(path)
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise UsageError(f"{quoted(str(path))} must contain a JSON list of tools, each an object.")
    return value


def parse_kwargs(text: str) -> dict[str, Any]:
    """The object in `--kwargs`. Raises UsageError."""
    try:
        value = decode_any_json(text)
    except DecodeError as error:
        raise UsageError(f"--kwargs is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise UsageError('--kwargs must be a JSON object, such as {"enable_thinking": false}.')
    return value


def _parse_line(line: bytes, number: int) -> object:
    try:
        return decode_any_json(line)
    except DecodeError as error:
        raise RequestError(f"Line {number} is not valid JSON: {error}.") from None


def _conversation(value: object, defaults: Mapping[str, Any]) -> tuple[list[Any], RenderInput]:
    """The messages, and everything else."""
    if not isinstance(value, dict):
        raise RequestError('A conversation must be an object with "messages".')
    for name in value:
        if name not in _FIELDS:
            raise RequestError(unknown("field", name, _FIELDS))
    if value.get("messages") is None:
        raise RequestError('A conversation must have "messages".', param="messages")
    fields = {name: _field(value, name, defaults) for name in _FIELDS}
    chat = RenderInput(
        (),
        tools=fields["tools"],
        documents=fields["documents"],
        add_generation_prompt=fields["add_generation_prompt"],
        continue_final_message=bool(fields["continue_final_message"]),
        kwargs=fields["chat_template_kwargs"],
    )
    return fields["messages"], chat


def _field(value: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> Any:
    given = value.get(name)
    if given is None:
        return defaults.get(name)
    expected, described = _FIELDS[name]
    if not isinstance(given, expected):
        raise RequestError(f'"{name}" must be {described}.', param=name)
    return given
