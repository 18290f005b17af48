"""Values without quotes around them, between an opening and a closing mark."""

from dynemo.answer.formats.call import CallWriter
from dynemo.answer.formats.json_text import escaped, quoted
from dynemo.answer.formats.schema import Types, is_only_text, json_value, types_of
from dynemo.answer.formats.source import Emit, Marks, NotACall, Source, Steps
from dynemo.messages.ask import Tool


class Values:
    """Writes the arguments of one call, one value after another."""

    def __init__(self, calls: CallWriter, tool: Tool, ends: Marks, followers: tuple[str, ...]):
        """`ends` close a value; a close counts only if one of the `followers` comes after it."""
        self._calls = calls
        self._tool = tool
        self._ends = ends
        self._followers = followers
        self._names: set[str] = set()

    def has(self, name: str) -> bool:
        return name in self._names

    def types(self, name: str) -> Types:
        return types_of(self._tool, name)

    def value(self, name: str, types: Types) -> Steps[None]:
        """Reads one value and its closing mark. Raises NotACall for a name that came before."""
        if name in self._names:
            raise NotACall
        emit = self._calls.arguments
        head = f"{', ' if self._names else '{'}{quoted(name)}: "
        if is_only_text(types):
            emit(head + '"')
            yield from self._text(lambda text: emit(escaped(text)))
            emit('"')
        else:
            parts: list[str] = []
            yield from self._text(parts.append)
            emit(head + json_value("".join(parts), types))
        self._names.add(name)

    def _text(self, emit: Emit) -> Steps[None]:
        source: Source = self._calls.source
        while True:
            mark = yield from source.until(self._ends, emit)
            if not mark:
                raise NotACall
            if (yield from source.is_next(self._followers)):
                return
            emit(mark)

    def finish(self) -> None:
        self._calls.arguments("}" if self._names else "{}")
        self._calls.finish()
