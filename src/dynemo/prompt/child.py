"""Renders one conversation in a process of its own, which the system bounds.

    stdin   JSON of `Work`
    stdout  "+", a line of JSON with the marks, and the prompt in UTF-8 (see `Rendered`); or "-" and
            the `Failure` of wire/failures.py

The parent is `serving/rendering.py`. The clock counts this process's own CPU time, so a busy
machine does not refuse a template that is merely slow.
"""

import json
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct, convert, to_builtins

from dynemo.errors import ModelError, RequestError
from dynemo.foreign import decode_any_json
from dynemo.limits import PROMPT_BYTES, RENDER_BYTES, RENDER_SECONDS
from dynemo.prompt.control.render import Rendered
from dynemo.prompt.probe import Message
from dynemo.prompt.render import RenderInput, render_as_given, render_prompt
from dynemo.prompt.template import ChatTemplate
from dynemo.wire.failures import encode_error


class Work(Struct, frozen=True):
    """`messages`: render these as they are, in place of the turns of `chat`."""

    sources: dict[str, str]
    special_tokens: dict[str, str]
    chat: RenderInput
    messages: list[dict[str, Any]] | None = None


def pack(
    template: ChatTemplate, chat: RenderInput, messages: Sequence[Message] | None = None
) -> bytes:
    given = None if messages is None else [dict(message) for message in messages]
    work = Work(dict(template.sources), dict(template.special_tokens), chat, given)
    # The json of Python takes integers of any size, and half of a surrogate pair.
    return json.dumps(to_builtins(work)).encode()


def _run(data: bytes) -> bytes:
    work = convert(decode_any_json(data), Work)
    signal.setitimer(signal.ITIMER_PROF, RENDER_SECONDS)  # then SIGPROF ends this process
    try:
        template = ChatTemplate(work.sources, special_tokens=work.special_tokens, is_bounded=False)
        if work.messages is None:
            rendered = render_prompt(template, work.chat)
        else:
            rendered = render_as_given(template, work.messages, work.chat)
        prompt = rendered.text.encode("utf-8", "surrogatepass")
        if len(prompt) > PROMPT_BYTES:
            raise cannot_render(f"the prompt has more than {PROMPT_BYTES >> 20} MB")
        return b"+" + json.dumps(rendered.marks).encode() + b"\n" + prompt
    except MemoryError:
        return b"-" + encode_error(_out_of_memory())
    except ModelError as error:  # Jinja has computed a constant of it, which was too large
        return b"-" + encode_error(RequestError(str(error), param="messages"))
    except RequestError as error:
        is_memory = isinstance(error.__cause__, MemoryError)
        return b"-" + encode_error(_out_of_memory() if is_memory else error)


def unpack(reply: bytes) -> Rendered:
    """Reads the part after the "+"."""
    marks, _, prompt = reply.partition(b"\n")
    text = prompt.decode("utf-8", "surrogatepass")
    return Rendered(text, convert(decode_any_json(marks), dict[str, str]))


def _out_of_memory() -> RequestError:
    return cannot_render(f"it needs more than {RENDER_BYTES >> 30} GB of memory")


def cannot_render(reason: str) -> RequestError:
    return RequestError(
        f"The model's chat template cannot render these messages: {reason}.", param="messages"
    )


def main() -> None:
    for kind, limit in ((resource.RLIMIT_AS, RENDER_BYTES), (resource.RLIMIT_CORE, 0)):
        with suppress(OSError, ValueError):  # macOS bounds no address space
            resource.setrlimit(kind, (limit, limit))
    sys.stdout.buffer.write(_run(sys.stdin.buffer.read()))


if __name__ == "__main__":
    main()
