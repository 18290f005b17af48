"""`--request-template FILE`: defaults for every request, as JSON in the form of a request."""

from pathlib import Path

from msgspec import DecodeError, Raw, json, structs

from dynemo.api.openai.chat import read_chat_ask
from dynemo.errors import RequestError, UsageError
from dynemo.messages.ask import Ask

#: Fields that a request must have and a template need not.
_STAND_INS = {"model": Raw(b'""'), "messages": Raw(b'[{"role": "user", "content": ""}]')}


def read_request_template(path: str) -> Ask:
    """The defaults in the file. Raises UsageError for a field that a request could not have."""
    try:
        fields = json.decode(Path(path).expanduser().read_bytes(), type=dict[str, Raw])
    except OSError as error:
        raise UsageError(f"The request template {path} cannot be read: {error.strerror}.") from None
    except (DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"The request template {path} is not a JSON object: {error}.") from None
    for name in ("messages", "stream", "stream_options"):
        if name in fields:
            raise UsageError(
                f'The request template {path} may not have "{name}": it is part of one request.'
            )
    try:
        ask = read_chat_ask(json.encode({**_STAND_INS, **fields}))
    except RequestError as error:
        raise UsageError(f"The request template {path} is wrong: {error}") from None
    return structs.replace(ask, turns=[], model=ask.model or None)
