"""`POST /v1/chat/completions`: a body to a call."""

from functools import partial

from dynemo.api.dialect import Call
from dynemo.api.openai.decode import decode
from dynemo.api.openai.detail import wants_running_usage
from dynemo.api.openai.guides import read_guide
from dynemo.api.openai.read import read_chat, wants_usage
from dynemo.api.openai.tools import is_older_form
from dynemo.api.openai.types import ChatRequest
from dynemo.api.openai.write import ChunkWriter, CompletionWriter
from dynemo.messages.ask import Ask


def read_chat_call(body: bytes) -> Call:
    """Raises RequestError."""
    asked = decode(body, ChatRequest)
    field, guide = read_guide(asked) or ("", None)
    ask = read_chat(asked, guide)
    fields = {"guide": field} if field else {}
    is_older = is_older_form(asked)
    if not asked.stream:
        whole = partial(CompletionWriter, is_older=is_older)
        return Call(ask, is_stream=False, writer=whole, fields=fields)
    writer = partial(
        ChunkWriter,
        include_usage=wants_usage(asked),
        is_continuous=wants_running_usage(asked),
        is_older=is_older,
    )
    return Call(ask, is_stream=True, writer=writer, fields=fields)


def read_chat_ask(body: bytes) -> Ask:
    """The ask alone, for inputs that write their answers themselves. Raises RequestError."""
    asked = decode(body, ChatRequest)
    _, guide = read_guide(asked) or ("", None)
    return read_chat(asked, guide)
