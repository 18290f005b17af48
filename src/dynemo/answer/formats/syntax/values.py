"""Values without quotes around them, between an opening and a closing mark."""

from collections.abc import Callable

from msgspec import Struct

from dynemo.answer.formats.call import CallWriter
from dynemo.answer.formats.json_text import escaped, quoted, read_value
from dynemo.answer.formats.schema import Types, is_only_text, json_value, names_of, types_of
from dynemo.answer.formats.source import Emit, Marks, NotACall, Source, Steps
from dynemo.messages.ask import Tool

_END = object()


class ValueEnds(Struct, frozen=True):
    """The marks that end a value, and what must come after each, because a value may quote them."""

    closes: tuple[str, ...]  #: the closing marks
    followers: tuple[str, ...]  #: one of them comes after a closing mark
    next_value: str  #: the mark of the next value, if the model forgot to close this one
    name_end: str  #: the text after the name of a value
    call_close: str  #: the mark that closes the call, if the model forgot to close the value
    call_followers: tuple[str, ...]  #: one of them, or the end of the text, comes after that


class ValuesWriter:
    """Writes the arguments of one call, one value after another."""

    def __init__(self, calls: CallWriter, tool: Tool, ends: ValueEnds) -> None:
        self._calls = calls
        self._tool = tool
        self._ends = ends
        self._marks = Marks((*ends.closes, ends.next_value, ends.call_close))
        self._names: set[str] = set()

    def types(self, name: str) -> Types:
        return types_of(self._tool, name)

    def value(self, name: str, types: Types) -> Steps[str]:
        """Reads one value and its closing mark.

        Returns the next mark if that was read instead, else empty text. Raises NotACall for a name
        that came before.
        """
        if name in self._names:
            raise NotACall
        emit = self._calls.arguments
        head = f"{', ' if self._names else '{'}{quoted(name)}: "
        if is_only_text(types):
            emit(head + '"')
            mark = yield from self._text(name, _escaping(emit))
            emit('"')
        else:
            parts: list[str] = []
            mark = yield from self._text(name, parts.append, _JsonGuard())
            emit(head + json_value("".join(parts), types))
        self._names.add(name)
        return mark

    def _text(self, name: str, emit: Emit, guard: "_JsonGuard | None" = None) -> Steps[str]:
        """Reads text up to the end of a value, or of a call."""
        source, ends = self._calls.source, self._ends
        both = emit if guard is None else _to_both(emit, guard.feed)
        while True:
            mark = yield from source.until(self._marks, both)
            if not mark:
                raise NotACall
            if guard is not None and guard.takes(mark):
                emit(mark)
                continue
            if mark in ends.closes:
                if (yield from source.is_next(ends.followers)):
                    return ""
            elif mark == ends.next_value:
                others = set(names_of(self._tool)) - self._names - {name}
                if others and (yield from source.is_next(_with(others, ends.name_end))):
                    return mark
            elif (yield from source.is_next(ends.call_followers, at_end=True)):
                return mark
            emit(mark)

    def finish(self) -> None:
        self._calls.arguments("}" if self._names else "{}")
        self._calls.finish()


class _JsonGuard:
    """Follows a value that may be an object or a list in JSON, whose strings may hold marks."""

    def __init__(self) -> None:
        self._source = Source()
        self._steps = read_value(self._source, _drop)
        self._is_open = True
        self._has_begun = False

    def feed(self, text: str) -> None:
        if not self._has_begun and text.strip():
            self._has_begun = True
            self._is_open = text.lstrip()[0] in "{["
        if self._is_open:
            self._source.feed(text)
            try:
                self._is_open = next(self._steps, _END) is not _END
            except NotACall:
                self._is_open = False

    def takes(self, mark: str) -> bool:
        """Whether the value is JSON so far, and the mark continues it."""
        self.feed(mark)
        return self._is_open


def _drop(text: str) -> None:
    pass


def _to_both(first: Emit, second: Emit) -> Emit:
    def emit(text: str) -> None:
        first(text)
        second(text)

    return emit


def _escaping(emit: Emit) -> Callable[[str], None]:
    return lambda text: emit(escaped(text))


def _with(names: set[str], end: str) -> tuple[str, ...]:
    return tuple(name + end for name in names)
