"""The guide of the rest of an answer, for another instance than the one that began it."""

from collections.abc import Iterable

from msgspec import json

from dynemo.engines.guides.lark import as_lark, lark_regex, read_choices
from dynemo.engines.guides.rest.errors import CannotContinue
from dynemo.engines.guides.rest.machine import Machine
from dynemo.engines.guides.rest.parse import parse_regex
from dynemo.engines.guides.rest.regex import Node, after, source
from dynemo.engines.guides.rest.write import RestWriter
from dynemo.foreign import decode_json
from dynemo.limits import GUIDE_PLACES
from dynemo.messages.request import Guide


def rest_of(guide: Guide) -> Guide:
    """Returns the guide of what may follow `guide.written`. Raises CannotContinue, GuideRefused."""
    match guide.kind:  # see CONTINUED_KINDS
        case "choice":
            choices = [choice for choice in read_choices(guide.text)
                       if choice.startswith(guide.written)]  # fmt: skip
            left = [choice[len(guide.written) :] for choice in choices]
            if not left:
                raise CannotContinue("the answer does not fit it")
            return Guide("choice", json.encode(left).decode())
        case "regex":
            return Guide("lark", as_lark("lark", f"start: {_rest_of_regex(guide)}"))
        case "json_schema":
            return Guide("lark", as_lark("lark", _rest_of_json(guide)))
    raise CannotContinue("guides of this kind cannot be advanced")


def _rest_of_regex(guide: Guide) -> str:
    nodes: frozenset[Node] = frozenset([parse_regex(guide.text)])
    for character in guide.written:
        nodes = _union(after(node, character) for node in nodes)
        if len(nodes) > GUIDE_PLACES:
            raise CannotContinue("the answer fits it in too many ways")
    if not nodes:
        raise CannotContinue("the answer does not fit it")
    return lark_regex(source(nodes))


def _union(sets: Iterable[frozenset[Node]]) -> frozenset[Node]:
    return frozenset().union(*sets)


def _rest_of_json(guide: Guide) -> str:
    root = decode_json(guide.text, object)
    if isinstance(root, dict) and "x-guidance" in root:
        raise CannotContinue("it says itself how llguidance shall follow it")
    machine = Machine(root)
    return RestWriter(machine).write(machine.follow(guide.written))
