"""W3C Trace Context: the `traceparent` of a request, so that one id finds it in every log.

    00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
    version, trace id, the caller's span, flags (1: it is sampled)

This program records no spans, so it does not forward `tracestate`, which belongs to tracers.
"""

import re
import secrets
from collections.abc import Sequence

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


def continue_trace(headers: Sequence[str]) -> str:
    """Returns the `traceparent` for a request that arrived with these `traceparent` headers.

    It is the caller's trace with a new span. Unless there is exactly one valid header, it is a new
    trace.
    """
    trace, flags = _parse(headers[0]) if len(headers) == 1 else ("", 0)
    return f"00-{trace or secrets.token_hex(16)}-{secrets.token_hex(8)}-{flags:02x}"


def trace_id(traceparent: str) -> str:
    """Returns the trace id of a `traceparent` from `continue_trace`, or "" if it is empty."""
    return traceparent[3:35]


def _parse(header: str) -> tuple[str, int]:
    """Returns the trace id and the known flags, or ("", 0) if the header is invalid."""
    found = _TRACEPARENT.fullmatch(header)
    if found is None:
        return "", 0
    version, trace, span, flags, more = found.groups()
    is_valid = version != "ff" and trace.strip("0") and span.strip("0")
    if not is_valid or (version == "00" and more is not None):  # later versions may add fields
        return "", 0
    return trace, int(flags, 16) & _SAMPLED
