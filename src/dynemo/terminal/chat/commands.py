"""The commands of the chat.

Each takes the chat and its arguments, and returns the text to print.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec import structs

from dynemo.errors import UsageError
from dynemo.messages.ask import Ask
from dynemo.serving.pipeline import Pipeline
from dynemo.spelling import unknown
from dynemo.terminal.chat.conversation import Conversation, save
from dynemo.terminal.chat.settings import NAMES, change, reset, shown_value
from dynemo.terminal.chat.tools import describe, read_tools
from dynemo.terminal.screen import count


@dataclass
class ChatSession:
    """The state of a chat: its model, its settings and its conversation."""

    pipeline: Pipeline
    model: str
    settings: Ask
    at_start: Ask  #: the settings that `/set NAME` restores
    conversation: Conversation = field(default_factory=Conversation)


class Command(NamedTuple):
    usage: str
    summary: str
    run: Callable[[ChatSession, str], str]


def _help(_chat: ChatSession, _rest: str) -> str:
    rows = [(command.usage, command.summary) for command in COMMANDS.values()]
    rows += [
        ("Alt-Enter, or \\ at the end", "insert a line break"),
        ("Up, Down", "recall earlier messages"),
        ("Ctrl-C", "stop the answer, or clear the line"),
        ("Ctrl-D", "leave"),
    ]
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"  {left:<{width}}  {right}" for left, right in rows)


def _clear(chat: ChatSession, _rest: str) -> str:
    forgotten = len(chat.conversation.rounds)
    chat.conversation.clear()
    kept = "; the system message stays" if chat.conversation.system else ""
    return f"Forgot {count(forgotten, 'turn')}{kept}."


def _system(chat: ChatSession, rest: str) -> str:
    if not rest:
        return chat.conversation.system or "There is no system message. /system TEXT sets one."
    if rest in ('""', "''"):
        chat.conversation.system = None
        return "The system message is removed."
    chat.conversation.system = rest
    return "The system message is set."


def _set(chat: ChatSession, rest: str) -> str:
    if not rest:
        return "\n".join(f"  {name:<30}{shown_value(chat.settings, name)}" for name in NAMES)
    name, *value = rest.split(maxsplit=1)
    if value:
        changed = change(chat.settings, name, value[0])
        chat.pipeline.check_settings(structs.replace(changed, model=chat.model))
        chat.settings = changed
    else:
        chat.settings = reset(chat.settings, chat.at_start, name)
    return f"{name} is {shown_value(chat.settings, name)}."


def _tools(chat: ChatSession, rest: str) -> str:
    if not rest:
        return describe(chat.settings.tools or ())
    if rest in ('""', "''", "off"):
        # The empty list also hides the tools of a request template.
        chat.settings = structs.replace(chat.settings, tools=[])
        return "The tools are removed."
    changed = structs.replace(chat.settings, tools=read_tools(rest))
    chat.pipeline.check_settings(structs.replace(changed, model=chat.model))
    chat.settings = changed
    return describe(changed.tools or ())


def _save(chat: ChatSession, rest: str) -> str:
    if not rest:
        raise UsageError("/save needs a file name: /save FILE.")
    path = save(chat.conversation, rest)
    return f"Saved {count(len(chat.conversation.rounds), 'turn')} to {path}."


def _run_by_chat_loop(_chat: ChatSession, _rest: str) -> str:
    raise AssertionError("the chat loop runs this command itself")


COMMANDS = {
    "help": Command("/help", "show this list", _help),
    "clear": Command("/clear", "forget the conversation, but keep the system message", _clear),
    "system": Command(
        "/system [TEXT]", 'show the system message, or set it ("" removes it)', _system
    ),
    "set": Command("/set [NAME [VALUE]]", "list the settings, change one, or reset one", _set),
    "tools": Command(
        "/tools [FILE]", 'list the tools, or load them from a JSON file ("" removes them)', _tools
    ),
    "save": Command("/save FILE", "write the messages to a JSON file", _save),
    "retry": Command("/retry", "answer the last message again", _run_by_chat_loop),
    "exit": Command("/exit, /quit", "leave", _run_by_chat_loop),
}

# A path such as /etc/hosts at the start of a message is not a command.
_COMMAND = re.compile(r"/([A-Za-z_-]+)(?:\s+(.*))?\Z", re.DOTALL)


def parse(line: str) -> tuple[str, str] | None:
    """Returns the command's name and arguments, or None for a message to the model.

    Raises UsageError for an unknown command.
    """
    match = _COMMAND.match(line)
    if match is None:
        return None
    name = match[1].lower()
    name = "exit" if name == "quit" else name
    if name not in COMMANDS:
        problem = unknown(
            "command", match[1], COMMANDS, prefix="/", otherwise="/help lists the commands."
        )
        raise UsageError(f"{problem} To send it as a message, start with a space.")
    return name, (match[2] or "").strip()


def run_command(chat: ChatSession, name: str, rest: str) -> str:
    """Runs a command and returns the text to print. Raises DynemoError for invalid arguments."""
    return COMMANDS[name].run(chat, rest)
