"""JSON that is safe for clients that split events as `str.splitlines` does."""

import msgspec

_encode = msgspec.json.encode


def safe(encoded: bytes) -> bytes:
    """JSON without the line separators of Unicode, which are escaped instead."""
    return (
        encoded.replace(b"\xe2\x80\xa8", b"\\u2028")
        .replace(b"\xe2\x80\xa9", b"\\u2029")
        .replace(b"\xc2\x85", b"\\u0085")
    )


def escape(text: str) -> bytes:
    """Text as a JSON string."""
    encoded = _encode(text)
    return encoded if text.isascii() else safe(encoded)
