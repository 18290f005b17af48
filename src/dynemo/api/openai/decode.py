"""The bytes of a request body to a typed request, with mistakes described as OpenAI does."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import msgspec

from dynemo.api.openai.types import AnyMessage
from dynemo.errors import RequestError
from dynemo.foreign import decode_json, json_decoder, most_values
from dynemo.limits import BODY_VALUES, SHOWN_CHARACTERS
from dynemo.spelling import shortened

# msgspec names the place of an error only in its text: `... - at `$.messages[0].role``. Only this
# module reads that text, and tests/api/test_openai_decode.py checks its format.
_PLACE = re.compile(r"(?P<what>.*?)(?: - at (?:`key` in )?`\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`", re.DOTALL)

#: Bytes of a body whose values are counted before they are decoded.
_LONG = 64 * 1024
#: Characters of a long text of msgspec that are looked at: at its start, and at its end.
_ENDS = 1000

T = TypeVar("T")


@cache
def _decoder(kind: Any) -> Callable[[bytes], Any]:
    return json_decoder(kind)


def convert_messages(messages: list[Any]) -> list[AnyMessage]:
    """Messages that were read from a file. Raises as `decode` does."""
    try:
        return msgspec.convert(messages, list[AnyMessage])
    except msgspec.ValidationError as error:
        raise _invalid(str(error), "messages") from None


def decode(body: bytes, kind: type[T]) -> T:
    """The body as a struct of `types.py`. Raises RequestError that names the field in `param`, in
    the form `messages[0].content`."""
    if len(body) > _LONG and most_values(body) > BODY_VALUES:
        field = _largest_field(body)
        most = f", most of which are in '{field}'" if field else ""
        raise RequestError(
            f"The request body may hold {BODY_VALUES:,} commas and opening brackets, and has "
            f"more{most}. Send less.",
            param=field,
        )
    key: Any = kind
    try:
        found: T = _decoder(key)(body)
        return found
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except msgspec.DecodeError as error:
        raise _unparsable(f"{error}.") from None


def _largest_field(body: bytes) -> str | None:
    """Returns the name of the field with the most values; None if the body is not a JSON object."""
    try:
        fields = decode_json(body, dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return None
    return _cut(max(fields, key=lambda name: most_values(bytes(fields[name])), default=""))


def _unparsable(problem: str) -> RequestError:
    return RequestError(f"We could not parse the JSON body of your request. {problem}")


def _invalid(text: str, root: str = "") -> RequestError:
    if len(text) > 2 * _ENDS:  # it repeats a value or a name of the client's
        text = text[:_ENDS] + text[-_ENDS:]
    match = _PLACE.fullmatch(text)
    what, path = (match["what"], root + (match["path"] or "")) if match else (text, root)
    if unknown := _UNKNOWN.fullmatch(what):
        field = _join(path, unknown["field"])
        message = f"Unrecognized request argument supplied: {field}"
        return RequestError(message, param=field, detail="unknown_parameter")
    if missing := _MISSING.fullmatch(what):
        field = _join(path, missing["field"])
        message = f"Missing required parameter: '{field}'."
        return RequestError(message, param=field, detail="missing_required_parameter")
    what = _cut(what)
    if not path:
        return RequestError(f"The request body is not what is expected here: {what}.")
    path = _cut(path)
    return RequestError(f"Invalid '{path}': {what}.", param=path, detail="invalid_value")


def _join(path: str, field: str) -> str:
    return _cut(f"{path}.{field}" if path else field)


def _cut(text: str) -> str:
    return shortened(text, SHOWN_CHARACTERS)
