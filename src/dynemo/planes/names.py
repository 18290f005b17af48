"""`dyn://NAME`: one part, or three."""

import re
from typing import NamedTuple

from dynemo.errors import UsageError
from dynemo.spelling import quoted

NAMESPACE = "dynemo"
ENDPOINT = "generate"
_PART = re.compile(r"[A-Za-z0-9_-]{1,128}")
_FORMS = "dyn://NAME or dyn://NAMESPACE/COMPONENT/ENDPOINT (also with dots)"


def is_name_part(text: str) -> bool:
    """Whether a text can be a part of a name: then it fits into a subject and into a path."""
    return _PART.fullmatch(text) is not None


class EndpointName(NamedTuple):
    """The address of a pool of instances. `component` is empty for a whole namespace."""

    namespace: str
    component: str
    endpoint: str

    def __str__(self) -> str:
        return f"dyn://{'/'.join(self)}"


def parse_name(text: str) -> EndpointName:
    """`dyn://pool`, `dyn://ns/component/endpoint`, `dyn://ns.component.endpoint`, or `dyn`.

    Raises UsageError that shows the forms.
    """
    if text == "dyn":
        return EndpointName(NAMESPACE, "", ENDPOINT)
    name = text.removeprefix("dyn://").strip("/")
    parts = re.split(r"[/.]", name)
    if len(name) > 128 or not all(map(_PART.fullmatch, parts)):
        raise UsageError(
            f"{quoted(text)} is not a name; give {_FORMS}, of letters, digits, `-` and `_`, "
            "at most 128."
        )
    if len(parts) == 1:
        return EndpointName(NAMESPACE, parts[0], ENDPOINT)
    if len(parts) == 3:
        return EndpointName(*parts)
    raise UsageError(f"{quoted(text)} has {len(parts)} parts; give {_FORMS}.")
