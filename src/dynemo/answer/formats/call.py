"""One tool call that is being read, and the text around calls."""

from collections.abc import Callable, Mapping, Sequence

from dynemo.answer.formats.format import (
    CallArguments,
    CallStarted,
    Part,
    SaidReasoning,
    SaidText,
    ToolFormat,
)
from dynemo.answer.formats.source import NotACall, Source
from dynemo.messages.ask import Tool


class AnswerOutput:
    """The parts of an answer, in order. Fragments of one kind that follow each other are joined."""

    __slots__ = ("_kind", "_parts", "_texts")

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._kind: Callable[[str], Part] = SaidText
        self._texts: list[str] = []

    def text(self, text: str) -> None:
        self._add(SaidText, text)

    def reasoning(self, text: str) -> None:
        self._add(SaidReasoning, text)

    def arguments(self, text: str) -> None:
        self._add(CallArguments, text)

    def started(self, id: str | None, name: str) -> None:
        self._close()
        self._parts.append(CallStarted(id, name))

    def take(self) -> list[Part]:
        """Returns the parts since the last time."""
        self._close()
        parts, self._parts = self._parts, []
        return parts

    def _add(self, kind: Callable[[str], Part], text: str) -> None:
        if kind is not self._kind:
            self._close()
            self._kind = kind
        self._texts.append(text)

    def _close(self) -> None:
        text = "".join(self._texts)
        if text:
            self._parts.append(self._kind(text))
        self._texts.clear()


class Prose:
    """Text or reasoning between marks, without the lines that only separate it from the marks.

    White space directly after a mark, and newlines at the end, are held back. They are dropped if a
    mark follows, and else are part of the text.
    """

    __slots__ = ("_drops_lead", "_emit", "_held", "is_fresh")

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._held: list[str] = []
        self._drops_lead = False
        #: Nothing but white space has come since the last mark.
        self.is_fresh = True

    def flows(self, text: str) -> bool:
        """Whether `add` would give out this text as it is, and keep nothing."""
        return not (self.is_fresh or self._held or text.endswith("\n"))

    def add(self, text: str) -> None:
        if self.is_fresh:
            if not text or text.isspace():
                self._held.append(text)
                return
            self.is_fresh = False
            if self._drops_lead:
                text = ("".join(self._held) + text).lstrip("\n")
                self._held.clear()
        body = text.rstrip("\n")
        if len(body) == len(text) and not self._held:
            self._emit(text)
            return
        if body:
            self._emit("".join(self._held) + body)
            self._held = [text[len(body) :]] if len(body) < len(text) else []
        else:
            self._held.append(text)

    def cut(self, *, drops_lead: bool = False) -> None:
        """Drops what is held, at a mark. `drops_lead`: newlines after the mark only separate."""
        self._held.clear()
        self._drops_lead = drops_lead
        self.is_fresh = True

    def restart(self) -> None:
        """Starts a new text at a mark that is part of the text."""
        self._emit("".join(self._held))
        self._held.clear()
        self.is_fresh = True

    def end(self, *, is_after_mark: bool) -> None:
        """Gives out what is held at the end, except white space after the last mark."""
        if not (is_after_mark and self.is_fresh):
            self._emit("".join(self._held))
        self._held.clear()


class CallWriter:
    """Writes one call after another.

    A call is held back until it is complete, or until `held` characters of its arguments are known.
    After that it is certain for the client, and its arguments are sent as they come.
    """

    def __init__(
        self,
        format: ToolFormat,
        tools: Sequence[Tool],
        source: Source,
        output: AnswerOutput,
        *,
        held: int,
        on_call: Callable[[], None],
    ) -> None:
        self.format = format
        self.tools: Mapping[str, Tool] = {tool.name: tool for tool in tools}
        self.source = source
        self._output = output
        self._most_held = held
        self._on_call = on_call
        self._name = ""
        self._id: str | None = None
        self._held: list[str] = []
        self._length = 0
        self._is_sent = False
        self._has_sent = False  # a call since `begin`
        self._waits = False  # complete calls wait
        self._waiting: list[tuple[str | None, str, list[str]]] = []

    def named(self, name: str) -> str:
        """Returns the name of the tool that a model means. Raises NotACall if there is none."""
        name = name.strip()
        if name in self.tools:
            return name
        for prefix in self.format.prefixes:
            if name.startswith(prefix) and name[len(prefix) :] in self.tools:
                return name[len(prefix) :]
        raise NotACall

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    @property
    def is_started(self) -> bool:
        return bool(self._name)

    def start(self, name: str, id: str | None = None) -> None:
        """Starts a call. Raises NotACall if no tool has this name."""
        self._name, self._id = self.named(name), id
        self._held = []
        self._length, self._is_sent = 0, False
        if not self._most_held and not self._waits:
            self._send()

    def set_id(self, id: str) -> None:
        """Sets the id of the call, if it is not sent yet."""
        self._id = id

    def arguments(self, text: str) -> None:
        """Adds a fragment of the JSON of the arguments."""
        self._length += len(text)
        if self._is_sent:
            self._output.arguments(text)
            self.source.record()  # what was taken so far has been sent
        else:
            self._held.append(text)
            if self._length > self._most_held and not self._waits:
                self._send()

    def finish(self) -> None:
        """Ends the call, which is complete."""
        if self._waits:
            self._waiting.append((self._id, self._name, self._held))
            self._held = []
        elif not self._is_sent:
            self._send()
        self._name = ""
        self.settle()

    def settle(self) -> None:
        """Forgets the text that was recorded, because it belongs to complete calls."""
        if not self._waits:
            self.source.record()

    def begin(self, *, waits: bool = False, keeps: bool = False) -> None:
        """Prepares for the calls after one mark.

        `waits`: complete calls wait for `send_waiting`. `keeps`: what is recorded stays so.
        """
        self._has_sent = False
        self._waits = waits
        self._waiting.clear()
        if not keeps:
            self.source.record()

    def send_waiting(self) -> None:
        """Sends the calls that wait."""
        for waiting in self._waiting:
            self._id, self._name, self._held = waiting
            self._send()
        self._waiting.clear()
        self._name = ""

    def fail(self) -> bool:
        """Forgets the current call. Returns whether a call was sent since `begin`."""
        self._name = ""
        self._held.clear()
        return self._has_sent

    def _send(self) -> None:
        self._is_sent = self._has_sent = True
        self._on_call()
        self._output.started(self._id, self._name)
        for text in self._held:
            self._output.arguments(text)
        self._held = []
        self.source.record()
