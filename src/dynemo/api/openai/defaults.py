"""`--request-template FILE`: defaults for every request, as JSON in the form of a request."""

from pathlib import Path

from msgspec import DecodeError, Raw, json, structs

from dynemo.api.openai.chat import read_chat_ask
from dynemo.api.openai.types import ChatRequest
from dynemo.errors import RequestError, UsageError
from dynemo.foreign import decode_json
from dynemo.messages.ask import Ask
from dynemo.spelling import quoted, unknown

_NO_DEFAULTS = ("messages", "stream", "stream_options")
#: Fields that a request must have and a template need not.
_STAND_INS = {"model": Raw(b'""'), "messages": Raw(b'[{"role": "user", "content": ""}]')}


def read_request_template(path: str) -> Ask:
    """The defaults in the file. Raises UsageError for a field that a request could not have."""
    try:
        fields = decode_json(Path(path).expanduser().read_bytes(), dict[str, Raw])
    except OSError as error:
        raise UsageError(
            f"The request template {quoted(path)} cannot be read: {error.strerror}."
        ) from None
    except DecodeError as error:
        raise UsageError(
            f"The request template {quoted(path)} is not a JSON object: {error}."
        ) from None
    known = [name for name in ChatRequest.__struct_fields__ if name not in _NO_DEFAULTS]
    for name in fields:
        if name in _NO_DEFAULTS:
            raise UsageError(
                f"The request template {quoted(path)} cannot have {quoted(name)}; leave it out."
            )
        if name not in known:
            place = f" in the request template {quoted(path)}"
            see = "it may have the fields of a chat request, such as temperature."
            raise UsageError(unknown("field", name, known, place=place, otherwise=see))
    try:
        ask = read_chat_ask(json.encode({**_STAND_INS, **fields}))
    except RequestError as error:
        raise UsageError(f"The request template {quoted(path)} is wrong. {error}") from None
    return structs.replace(ask, turns=[], model=ask.model or None)
