"""Keeps control tokens out of what clients send: text that spells one stays plain characters.

A chat template prints the control tokens of a prompt and the client's texts into one string. So the
tokenizer cannot tell `<|im_end|>` of the template from `<|im_end|>` of a user. This module marks
what the client sent before the template runs: one character of each such spelling becomes a
private-use character, a mark, which occurs nowhere else. No token holds a mark, so the tokenizer
finds the template's own tokens only. Then each mark is the character again
(`Tokenizer.encode_marked`), and the text around it is tokenized as one run.

Templates look into contents, so the best rendering is the one with the fewest marks. But they also
cut, trim and join what they print, and so make a token of pieces. Therefore a conversation is
rendered up to three times:

1. Without marks. If no text holds a control token, or the beginning of one where a template could
   add the rest, this is the prompt.
2. With every character marked that begins or ends a token. Its tokens are the template's own. If
   the first rendering has the same tokens, it is the prompt.
3. With marks only where a text holds a token or such a beginning. If its tokens are those of the
   second rendering, it is the prompt. Otherwise the second one is.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dynemo.errors import RequestError
from dynemo.messages.request import JOINER
from dynemo.prompt.control.spellings import Spellings
from dynemo.prompt.control.texts import REASONING_MARKS, ControlTexts
from dynemo.prompt.probe import Message

_JOINER_TOKENS = 4  #: at most: three for its bytes, and one because it separates
_IS_REASONING = re.compile("(" + "|".join(map(re.escape, REASONING_MARKS)) + ")")
#: The fields of a message in which an assistant speaks.
_SPOKEN = frozenset({"content", "reasoning_content", "thinking", "reasoning"})
#: Many templates make a control token of a role. Any other role is a text like the others.
_ROLE = re.compile(r"[\w .-]*")
_PRIVATE = range(0xE000, 0xF900)
_TAKEN = re.compile(r"[\ue000-\uf8ff]|\\u([0-9a-fA-F]{4})")


@dataclass(frozen=True, slots=True)
class Given:
    """Holds the values that a client sent for the template, apart from flags."""

    messages: Sequence[Message]
    tools: Sequence[Any] | None
    documents: Sequence[Any] | None
    kwargs: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered conversation. Each character in `marks` stands for its value, as plain text."""

    text: str
    marks: Mapping[str, str]

    @property
    def split_tokens(self) -> int:
        """How many tokens `split` has more than the prompt itself, at most."""
        return _JOINER_TOKENS * sum(map(self.text.count, self.marks))

    @property
    def split(self) -> str:
        """The prompt for an engine that parses all control tokens of a text.

        An invisible word joiner breaks what only looks like a token: no text can do this and be
        tokenized as if nothing were there.
        """
        return self.text.translate({ord(m): meant + JOINER for m, meant in self.marks.items()})

    @property
    def plain(self) -> str:
        """The text of the prompt, without marks."""
        return self.text.translate({ord(mark): meant for mark, meant in self.marks.items()})


def render_marked(
    control: ControlTexts, sources: Iterable[str], given: Given, render: Callable[[Given], str]
) -> Rendered:
    """Renders a conversation whose texts bring no control token. Raises what `render` raises.

    `sources` are the texts of the templates.
    """
    spellings = control.spellings
    plain = render(given)
    if not control.texts or not _has_any(spellings, given):
        return Rendered(plain, {})
    marks = _Marks(_taken([*sources, control.private], given))
    marked = _marked_little(spellings, given, marks)
    whole = marks.restored(render(_marked_whole(spellings, marked, marks)))
    tokens = spellings.tokens_in(whole)
    if not control.is_folded and spellings.tokens_in(plain) == tokens:
        return Rendered(plain, {})
    little = marks.restored(render(marked))
    is_same = spellings.tokens_in(little) == tokens
    return Rendered(little if is_same else whole, marks.characters)


class _Marks:
    """Assigns a mark to each character that needs one."""

    def __init__(self, taken: set[str]) -> None:
        self._free = (chr(code) for code in _PRIVATE if chr(code) not in taken)
        self._mark_of: dict[str, str] = {}

    @property
    def characters(self) -> dict[str, str]:
        """Mark -> the character that it stands for."""
        return {mark: character for character, mark in self._mark_of.items()}

    def __getitem__(self, character: str) -> str:
        mark = self._mark_of.get(character)
        if mark is None:
            mark = next(self._free, None)
            if mark is None:
                raise RequestError(
                    "The messages hold every private-use character (U+E000 to U+F8FF) and the "
                    "text of a control token. Remove one of these.",
                    param="messages",
                )
            self._mark_of[character] = mark
        return mark

    def restored(self, text: str) -> str:
        """Undoes an escape: JSON in ASCII and Python's lists print a mark as `\\ue000`."""
        if "\\u" in text:
            for mark in self._mark_of.values():
                text = text.replace(f"\\u{ord(mark):04x}", mark)
        return text


def _taken(others: Iterable[str], given: Given) -> set[str]:
    texts = [text for text, _ in _texts(given)]
    return {
        chr(int(found[1], 16)) if found[1] else found[0]
        for text in (*others, *texts)
        for found in _TAKEN.finditer(text)
    }


def _has_any(spellings: Spellings, given: Given) -> bool:
    return any(
        spellings.may_hold(text)
        and next(spellings.hits(text, may_reason=may_reason), None) is not None
        for text, may_reason in _texts(given, spellings)
    )


def _texts(given: Given, spellings: Spellings | None = None) -> Iterator[tuple[str, bool]]:
    """Yields each text that the client sent, and whether it may hold reasoning marks.

    With `spellings` it skips values that cannot hold any.
    """
    for message in given.messages:
        is_assistant = message.get("role") == "assistant"
        for name, value in message.items():
            if isinstance(value, str):
                if name != "role" or not _ROLE.fullmatch(value):
                    yield value, is_assistant and name in _SPOKEN
            elif value is not None:
                may_reason = is_assistant and name in _SPOKEN
                yield from ((text, may_reason) for text in _leaves(value))
    for value in (given.tools, given.documents, given.kwargs):
        if value and (spellings is None or spellings.may_hold_any(value)):
            yield from ((text, False) for text in _leaves(value))


def _leaves(value: object) -> Iterator[str]:
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            rest += item.keys()
            rest += item.values()
        elif isinstance(item, list | tuple):
            rest += item


def _marked_little(spellings: Spellings, given: Given, marks: _Marks) -> Given:
    def marked(text: str, may_reason: bool) -> str:
        parts: list[str] = []
        end = 0
        for at in spellings.hits(text, may_reason=may_reason):
            parts += text[end:at], marks[text[at]]
            end = at + 1
        return "".join((*parts, text[end:])) if parts else text

    return _changed(given, marked)


def _marked_whole(spellings: Spellings, little: Given, marks: _Marks) -> Given:
    """Marks the other edges in texts that `_marked_little` has marked."""
    table = {ord(edge): marks[edge] for edge in spellings.edges}

    def marked(text: str, may_reason: bool) -> str:
        if not may_reason:
            return text.translate(table)
        parts = _IS_REASONING.split(text)
        parts[::2] = [part.translate(table) for part in parts[::2]]
        return "".join(parts)

    return _changed(little, marked)


def _changed(given: Given, change: Callable[[str, bool], str]) -> Given:
    return replace(
        given,
        messages=[_changed_message(message, change) for message in given.messages],
        tools=_mapped(given.tools, change, False),
        documents=_mapped(given.documents, change, False),
        kwargs={name: _mapped(value, change, False) for name, value in (given.kwargs or {}).items()}
        if given.kwargs is not None
        else None,
    )


def _changed_message(message: Message, change: Callable[[str, bool], str]) -> dict[str, Any]:
    is_assistant = message.get("role") == "assistant"
    return {
        name: value
        if name == "role" and isinstance(value, str) and _ROLE.fullmatch(value)
        else _mapped(value, change, is_assistant and name in _SPOKEN)
        for name, value in message.items()
    }


def _mapped(value: Any, change: Callable[[str, bool], str], may_reason: bool) -> Any:
    if isinstance(value, str):
        return change(value, may_reason)
    if isinstance(value, Mapping):
        return {
            change(key, may_reason) if isinstance(key, str) else key: _mapped(
                item, change, may_reason
            )
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_mapped(item, change, may_reason) for item in value]
    return value
