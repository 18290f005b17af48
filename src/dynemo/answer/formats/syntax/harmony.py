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

_HEADER_ENDS = Marks((MESSAGE, *ENDS))
_STARTS = Marks((CHANNEL, START))
_BODY_ENDS = Marks((*ENDS, START))
_AFTER_END = (START, CHANNEL, *ENDS)
_ROLE = re.compile(r"\s*(?:<\|start\|>)?(?:assistant)?\s*(?:to=[^\s<]*)?\s*")
_PARTS = (START, CHANNEL, MESSAGE, "assistant", "to=")
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
            mark = ""
            if not (yield from self._is_header()):
                mark = yield from source.until(_STARTS, self._content.add)
                if not mark:
                    self._content.add(source.rest())
            if mark or source.at < len(source.text):
                source.record()
                yield from self._message(mark)

    def _is_header(self) -> Steps[bool]:
        """Whether a header comes next, and not text without one. Takes nothing."""
        source = self._source
        while True:
            match = _ROLE.match(source.text, source.at)
            end = match.end() if match else source.at
            rest = source.text[end : end + len(CHANNEL)]
            if rest.startswith((CHANNEL, MESSAGE)):
                return True
            is_part = any(text.startswith(rest) for text in _PARTS)
            if source.is_over or not is_part or end - source.at > NAME_CHARACTERS:
                return False
            yield

    def _message(self, mark: str) -> Steps[None]:
        """Reads one header, of which the mark is the start, and its message."""
        source = self._source
        try:
            header, end = yield from source.short(_HEADER_ENDS, NAME_CHARACTERS)
        except NotACall:
            end = ""
        if end != MESSAGE:
            self._content.add(mark + source.recorded())
            return
        channel = _CHANNEL_NAME.search(mark + header)
        recipient = _RECIPIENT.search(mark + header)
        if recipient and self._calls is not None:
            if (yield from self._call(self._calls, mark, recipient[1])):
                return
        elif recipient:
            self._content.add(mark + source.recorded())
        elif channel and channel[1] == "analysis":
            self._thoughts(mark + source.recorded(), True)
            self._thoughts((yield from self._body(self._think)), True)
            return
        source.recorded()
        end = yield from self._body(self._content.add)
        if recipient and end in ENDS:  # nothing is left out of a message that is not a call
            self._content.add(end)

    def _think(self, text: str) -> None:
        self._thoughts(text, False)

    def _body(self, emit: Callable[[str], None]) -> Steps[str]:
        """Reads a message up to its end, and returns the mark of the end."""
        source = self._source
        while True:
            mark = yield from source.until(_BODY_ENDS, emit)
            if not mark:
                emit(source.rest())
                return ""
            if mark == START:
                if (yield from source.is_next(("assistant",))):
                    return mark
            elif (yield from source.is_next(_AFTER_END, at_end=True)):
                return mark
            emit(mark)

    def _call(self, calls: CallWriter, mark: str, recipient: str) -> Steps[bool]:
        """Reads the message of a call. Text that is not a call is content."""
        source = self._source
        calls.begin(keeps=True)
        try:
            calls.start(recipient)
            yield from read_arguments(calls)
            calls.finish()
        except NotACall:
            has_sent = calls.fail()
            raw = source.recorded()
            self._content.add(raw if has_sent else mark + raw)
            return False
        source.recorded()
        yield from source.spaces()
        if not (yield from source.has(ENDS)) and source.is_over:
            rest = source.text[source.at :]
            if any(end.startswith(rest) for end in ENDS):
                source.rest()  # a part of the end
        return True


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
