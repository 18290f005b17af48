"""W3C Trace Context: the `traceparent` of a request, so that one id finds it in every log.

    00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
    version, trace id, the caller's span, flags (1: it is sampled)

Spans are not recorded here, so `tracestate`, which belongs to those who record them, ends here.
"""

import re
import secrets
from collections.abc import Sequence

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


def continued(given: Sequence[str]) -> str:
    """What goes on with a request that came with these `traceparent` headers: the caller's trace
    under a span of our own, or a new trace where there is not exactly one valid header."""
    trace, flags = _parse(given[0]) if len(given) == 1 else ("", 0)
    return f"00-{trace or secrets.token_hex(16)}-{secrets.token_hex(8)}-{flags:02x}"


def trace_id(traceparent: str) -> str:
    """Of what `continued` gave; empty for nothing."""
    return traceparent[3:35]


def _parse(header: str) -> tuple[str, int]:
    """The trace id and the flags that we know; empty and 0 where the header is not valid."""
    found = _FORM.fullmatch(header)
    if found is None:
        return "", 0
    version, trace, span, flags, more = found.groups()
    is_valid = version != "ff" and trace.strip("0") and span.strip("0")
    if not is_valid or (version == "00" and more is not None):  # later versions may say more
        return "", 0
    return trace, int(flags, 16) & _SAMPLED
