"""Splits an answer into content, reasoning and tool calls, as its text arrives.

One state machine reads all formats. Its laws (`tests/answer/formats/`):

- The parts depend on the text alone. However it is cut into pieces, they are the same when joined.
- Nothing is lost. What looks like a call and is malformed, cut off or for no known tool is content,
  complete with its marks. A call is sent when it is complete, or once so many characters of its
  arguments are known (`HELD_CALL_CHARACTERS`); a call that breaks after that ends there, and the
  rest of the text is content.
- The time is linear in the text.

Only separators are left out: marks, and newlines between a mark and a text.
"""

from collections.abc import Sequence

from dynemo.answer.formats.call import AnswerOutput, CallWriter, Prose
from dynemo.answer.formats.format import Format, Part, ReasoningFormat, SaidText, ToolFormat
from dynemo.answer.formats.source import Marks, NotACall, Source, Steps
from dynemo.answer.formats.syntax.calls import only_calls, pass_on, read_calls, start_marks
from dynemo.answer.formats.syntax.harmony import Channels
from dynemo.limits import HELD_CALL_CHARACTERS
from dynemo.messages.ask import Tool

_NO_REASONING = ReasoningFormat("none", (), ())


class AnswerParser:
    """The state of one answer. Feed it every piece of text, then call `end` once.

    `reasoning_open`: the prompt ends inside a reasoning block (`choose.is_reasoning_open`).
    `wants_reasoning`: reasoning is split off; else it is content, with its marks.
    `wants_calls`: calls of `tools` are read; else their text is content.
    `held`: how many characters of a call's arguments are held back. 0: a call is sent once its name
    is known.
    """

    __slots__ = ("_is_plain", "_output", "_reader", "_source", "_steps")

    def __init__(
        self,
        format: Format,
        tools: Sequence[Tool],
        *,
        reasoning_open: bool = False,
        wants_calls: bool = True,
        wants_reasoning: bool = True,
        held: int = HELD_CALL_CHARACTERS,
    ) -> None:
        has_calls = wants_calls and bool(tools) and format.tools is not None
        has_reasoning = wants_reasoning and format.reasoning is not None
        self._is_plain = not has_calls and not has_reasoning
        self._source = Source()
        self._output = AnswerOutput()
        self._reader = _AnswerReader(
            self._source,
            self._output,
            format,
            tools if has_calls else (),
            is_raw=not wants_reasoning,
            held=held,
        )
        self._steps = self._reader.read(is_open=reasoning_open)

    @property
    def is_thinking(self) -> bool:
        """Whether the text so far ends inside a block of reasoning."""
        return self._reader.is_thinking

    def passes(self, text: str) -> bool:
        """Whether `feed` would return this text as one part. Then it need not be called.

        The part is reasoning if `is_thinking`, and else content. Most tokens pass.
        """
        return self._is_plain or self._reader.passes(text)

    def feed(self, text: str) -> list[Part]:
        """Returns the parts that the text completes."""
        if self._is_plain:
            return [SaidText(text)] if text else []
        self._source.feed(text)
        next(self._steps, None)
        return self._output.take()

    def end(self) -> list[Part]:
        """Returns the last parts. Call it once, after the last text."""
        if self._is_plain:
            return []
        self._source.is_over = True
        for _ in self._steps:
            pass
        return self._output.take()


class _AnswerReader:
    def __init__(
        self,
        source: Source,
        output: AnswerOutput,
        format: Format,
        tools: Sequence[Tool],
        *,
        is_raw: bool,
        held: int,
    ) -> None:
        self._source = source
        self._reasoning = format.reasoning or _NO_REASONING
        self._tools = format.tools if tools else None
        self._is_raw = is_raw
        self.is_thinking = False
        self._awaited: tuple[Marks, Prose] | None = None  # and the text before the next mark
        self._content = Prose(output.text)
        self._thoughts = Prose(output.reasoning)
        self._calls: CallWriter | None = None
        if self._tools is not None:
            self._calls = CallWriter(
                self._tools, tools, source, output, held=held, on_call=self._on_call
            )
        self._has_marks = False  # a mark has been read
        self._has_calls = False  # a call has been sent

    def read(self, *, is_open: bool) -> Steps[None]:
        """Reads the whole answer."""
        if self._reasoning.is_channels or (self._tools and self._tools.syntax == "harmony"):
            yield from Channels(self._source, self._content, self._think, self._calls).read()
        else:
            yield from self._blocks(is_open=is_open)
        self._content.end(is_after_mark=self._has_marks)

    def passes(self, text: str) -> bool:
        if self._awaited is None or not text or self._source.at < len(self._source.text):
            return False
        marks, prose = self._awaited
        return prose.flows(text) and marks.is_absent(text)

    def _on_call(self) -> None:
        self._has_marks = self._has_calls = True
        self._content.cut()

    def _think(self, text: str, is_mark: bool) -> None:
        """Takes a fragment of reasoning, or a mark around it."""
        if self._is_raw:
            self._content.add(text)
        elif not is_mark:
            self._thoughts.add(text)
        else:
            if not text:
                self._thoughts.end(is_after_mark=True)
            self._has_marks = True
            self._thoughts.cut(drops_lead=True)

    def _blocks(self, *, is_open: bool) -> Steps[None]:
        """Reads blocks of reasoning and of content in turn."""
        marks = _ContentMarks(self._reasoning, self._tools)
        if self._tools is not None and self._tools.is_open and not is_open:
            yield from self._call("")
        if is_open or self._reasoning.is_open:
            yield from self._reason()
        while True:
            yield from self._bare_calls()
            self._awaited = marks.all, self._content
            mark = yield from self._source.until(marks.all, self._content.add)
            self._awaited = None
            if not mark:
                self._end_content(marks)
                return
            if mark in marks.calls:
                yield from self._call(mark)
            elif mark in marks.opens and self._content.is_fresh:
                self._think(mark, True)
                yield from self._reason()
            elif mark in marks.wrappers or (self._content.is_fresh and self._is_silent(mark)):
                self._skip(mark)
            else:
                self._content.add(mark)

    def _end_content(self, marks: "_ContentMarks") -> None:
        """Reads the rest, which no mark ends. A part of a closing mark after a call is left out."""
        rest = self._source.rest()
        is_part = any(mark.startswith(rest) for mark in marks.closes)
        if not (rest and is_part and self._content.is_fresh and self._has_calls):
            self._content.add(rest)

    def _is_silent(self, mark: str) -> bool:
        """Whether a mark at the start of content only ends the block before it."""
        return mark in self._reasoning.closes or self._has_calls

    def _skip(self, mark: str) -> None:
        """Leaves out a mark that only separates."""
        if self._is_raw and self._is_of_reasoning(mark):
            self._content.add(mark)
            self._content.restart()
            return
        self._has_marks = True
        if self._content.is_fresh:
            self._content.cut(drops_lead=True)

    def _reason(self) -> Steps[None]:
        """Reads reasoning up to the end of its block, and a call that ends it."""
        self.is_thinking = True
        mark = yield from self._thoughts_to_mark()
        self.is_thinking = False
        if not mark:
            return
        self._thoughts.cut()
        if not self._is_of_reasoning(mark):
            yield from self._call(mark)
        elif self._is_raw:
            self._content.add(mark)
            self._content.restart()
        else:
            self._content.cut(drops_lead=True)

    def _thoughts_to_mark(self) -> Steps[str]:
        """Reads reasoning, and returns the mark that ends it; empty at the end of the answer."""
        reasoning, source = self._reasoning, self._source
        starts = start_marks(self._tools) if self._tools is not None else ()
        marks = Marks((*reasoning.closes, *reasoning.opens, *reasoning.wrappers, *starts))
        self._thoughts.cut(drops_lead=True)
        self._has_marks = True
        while True:
            self._awaited = None if self._is_raw else (marks, self._thoughts)
            mark = yield from source.until(marks, lambda text: self._think(text, False))
            self._awaited = None
            if not mark:
                self._think(source.rest(), False)
                self._thoughts.end(is_after_mark=True)
                return ""
            if mark in starts and not reasoning.ends_at_calls:
                if (yield from self._last_calls(mark)):
                    return ""
            elif mark not in reasoning.opens:
                return mark
            elif self._is_raw or not self._thoughts.is_fresh:
                self._think(mark, False)

    def _last_calls(self, mark: str) -> Steps[bool]:
        """Reads calls inside a block of reasoning. Returns whether they end the answer.

        Calls with more text after them are quotes, which belong to the reasoning.
        """
        calls, source, inner = self._calls, self._source, Source()
        if calls is None:
            return False
        calls.source = inner
        calls.begin(waits=True)
        raw = [mark]
        marks = Marks((*self._reasoning.closes, *self._reasoning.wrappers))
        try:
            yield from pass_on(source, inner, marks, only_calls(calls, mark), raw.append)
            is_call = inner.is_over and calls.has_waiting
        except NotACall:
            is_call = False
        calls.source = source
        if is_call:
            self._thoughts.cut()
            calls.send_waiting()
            source.recorded()
            return True
        rest = inner.text[inner.at :]
        source.give_back(rest)
        text = "".join(raw)
        self._think(text[: len(text) - len(rest)], False)
        return False

    def _is_of_reasoning(self, mark: str) -> bool:
        return mark in self._reasoning.closes or mark in self._reasoning.wrappers

    def _bare_calls(self) -> Steps[None]:
        """Reads calls that no mark starts, which only the start of the content may hold."""
        tools = self._tools
        if tools is None or not tools.bare or not self._content.is_fresh:
            return
        is_call = True
        while is_call and self._calls is not None:
            self._calls.begin()
            char = yield from self._source.spaces()
            if not char or char not in tools.bare:
                self._content.add(self._source.recorded())
                return
            is_call = yield from self._call("", is_bare=True)

    def _call(self, mark: str, *, is_bare: bool = False) -> Steps[bool]:
        """Reads calls after a mark. Text that is not a call is content."""
        calls, source = self._calls, self._source
        if calls is None:
            return False
        if not is_bare:
            calls.begin()
        try:
            yield from read_calls(calls, mark, is_bare=is_bare)
        except NotACall:
            has_sent = calls.fail()
            raw = source.recorded()
            self._content.add(raw if has_sent else mark + raw)
            return False
        self._has_marks = True
        self._content.add(source.recorded())
        return True


class _ContentMarks:
    """The marks that may stand in content."""

    def __init__(self, reasoning: ReasoningFormat, tools: ToolFormat | None) -> None:
        self.opens = frozenset(reasoning.opens)
        self.wrappers = frozenset(reasoning.wrappers)
        calls: tuple[str, ...] = ()
        closes: tuple[str, ...] = ()
        if tools is not None:
            calls = start_marks(tools)
            closes = (*tools.closes, tools.call_tag.close)
        self.calls = frozenset(calls)
        self.closes = frozenset(closes)
        self.all = Marks(
            (*calls, *reasoning.opens, *closes, *reasoning.closes, *reasoning.wrappers)
        )
