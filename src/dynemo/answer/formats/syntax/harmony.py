"""Channels, as gpt-oss writes them: a header, and then a message of that channel.

    <|channel|>analysis<|message|>thoughts<|end|><|start|>assistant<|channel|>commentary
    to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>

The recipient stands in the header's role or in its channel. A message for a tool is a call, all
other messages of `analysis` are reasoning, and the rest is content.
"""

import re
from collections.abc import Callable

from dynemo.answer.formats.call import CallWriter, Prose
from dynemo.answer.formats.json_text import read_value
from dynemo.answer.formats.source import Marks, NotACall, Source, Steps
from dynemo.limits import NAME_CHARACTERS

CHANNEL, MESSAGE, START = "<|channel|>", "<|message|>", "<|start|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")
CONSTRAIN = "<|constrain|>"

_HEADER_ENDS = Marks((MESSAGE, START, *ENDS))
_BODY_ENDS = Marks((*ENDS, START))
_ROLE = re.compile(r"\s*(assistant)?\s*(to=\S*)?\s*")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_CHANNEL_NAME = re.compile(r"<\|channel\|>\s*(\w+)")


class Channels:
    """Reads a whole answer."""

    def __init__(
        self,
        source: Source,
        content: Prose,
        thoughts: Callable[[str, bool], None],
        calls: CallWriter | None,
    ) -> None:
        """`thoughts` gets a fragment of reasoning, or a mark: then its second argument is true."""
        self._source = source
        self._content = content
        self._thoughts = thoughts
        self._calls = calls

    def read(self) -> Steps[None]:
        source = self._source
        while (yield from source.peek()):
            if not (yield from self._is_header()):
                mark = yield from source.until(Marks((CHANNEL, START, *ENDS)), self._content.add)
                if mark in ("", *ENDS, START):
                    continue
                source.record()
                yield from self._message(CHANNEL)
                continue
            source.record()
            yield from self._message("")

    def _is_header(self) -> Steps[bool]:
        """Whether a header comes next, and not text without one. Takes nothing."""
        source = self._source
        while True:
            match = _ROLE.match(source.text, source.at)
            end = match.end() if match else source.at
            rest = source.text[end : end + len(CHANNEL)]
            if rest.startswith((CHANNEL, MESSAGE)):
                return True
            is_part = any(text.startswith(rest) for text in (CHANNEL, MESSAGE, "assistant", "to="))
            if source.is_over or not is_part or end - source.at > NAME_CHARACTERS:
                return False
            yield

    def _message(self, mark: str) -> Steps[None]:
        """Reads one header and its message."""
        source = self._source
        try:
            header, end = yield from source.short(_HEADER_ENDS, NAME_CHARACTERS)
        except NotACall:
            self._content.add(mark + source.recorded())
            return
        if end != MESSAGE:
            self._content.add(mark + source.recorded())
            return
        header = mark + header
        channel = _CHANNEL_NAME.search(header)
        recipient = _RECIPIENT.search(header)
        if recipient and self._calls is not None:
            try:
                yield from self._call(self._calls, recipient[1])
                return
            except NotACall:
                self._calls.fail()
                self._content.add(mark + source.recorded())
        elif channel and channel[1] == "analysis" and not recipient:
            self._thoughts(mark + source.recorded(), True)
            end = yield from source.until(_BODY_ENDS, lambda text: self._thoughts(text, False))
            self._thoughts(end, True)
            return
        elif recipient:
            self._content.add(mark + source.recorded())
        else:
            source.recorded()
        yield from source.until(_BODY_ENDS, self._content.add)

    def _call(self, calls: CallWriter, recipient: str) -> Steps[None]:
        source = self._source
        calls.start(recipient)
        yield from read_arguments(calls)
        calls.finish()
        source.recorded()
        yield from source.spaces()
        yield from source.has((*ENDS,))


def read_arguments(calls: CallWriter) -> Steps[None]:
    """Reads the object of a call; no text at all is an empty object."""
    source = calls.source
    char = yield from source.spaces()
    if char == "{":
        yield from read_value(source, calls.arguments)
    elif char and (yield from source.is_next(ENDS)):
        calls.arguments("{}")
    else:
        raise NotACall
