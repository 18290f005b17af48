"""The deadline of a request: its header `X-Request-Timeout`, in seconds from its arrival."""

import re

from dynemo.errors import DeadlineExceeded, RequestError
from dynemo.http.asgi import Scope, find_headers
from dynemo.limits import DEADLINE_SECONDS, SHOWN_CHARACTERS
from dynemo.spelling import quoted

HEADER = "X-Request-Timeout"
_NAME = HEADER.lower().encode()
_SECONDS = re.compile(r"(\d{1,9}(\.\d{0,9})?|\.\d{1,9})\Z", re.ASCII)


def read_timeout(scope: Scope) -> float | None:
    """The seconds that the request may take; None without the header. Raises RequestError."""
    values = find_headers(scope, _NAME)
    if not values:
        return None
    value = values[0].strip()
    if len(values) == 1 and _SECONDS.match(value) and 0 < float(value) <= DEADLINE_SECONDS:
        return float(value)
    given = ", ".join(values)[:SHOWN_CHARACTERS]
    raise RequestError(
        f"The header {HEADER} takes one number of seconds, more than 0 and at most "
        f"{DEADLINE_SECONDS:,.0f}, not {quoted(given)}.",
        param=HEADER,
    )


def exceeded(seconds: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"The request took longer than {seconds:g} s, the limit of its header {HEADER}."
    )
