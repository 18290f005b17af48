"""Frames: the bytes of one connection, cut into (kind, stream, body). Sans I/O.

A frame is a header of 13 bytes, big-endian, and a body:

    length  u32   of the body, at most MAX_BODY, checked before anything is kept
    kind    u8    one of Kind
    stream  u64   chosen by the asking side; 0 is the connection itself
    body          msgpack
"""

from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from dynemo.errors import WireError

HEADER = Struct("!IBQ")
MAX_BODY = 16 * 1024 * 1024


class Kind(IntEnum):
    HELLO = 1  # who I am; first frame of the answering side
    OPEN = 2  # a stream's one-time token
    REQUEST = 3  # a Request to answer on this stream
    DATA = 4  # a Delta
    END = 5  # the last Delta of a stream, the one with its finish
    ERROR = 6  # a Failure instead of END; on stream 0, of the connection
    CANCEL = 7  # nobody waits for this stream any more
    PING = 8
    PONG = 9  # the answer to PING, with a Load
    GOAWAY = 10  # no further requests, please


_KINDS = frozenset(int(kind) for kind in Kind)


class Frame(NamedTuple):
    kind: int
    stream: int
    body: bytes


def encode(kind: Kind, stream: int, body: bytes = b"") -> bytes:
    """The bytes of one frame. Raises WireError for a body over the cap."""
    if len(body) > MAX_BODY:
        raise WireError(f"a frame's body of {len(body)} bytes is over the cap of {MAX_BODY}")
    return HEADER.pack(len(body), kind, stream) + body


class FrameReader:
    """Bytes as they come in, frames as they complete. Keeps at most one partial frame."""

    def __init__(self) -> None:
        self._partial = b""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, in order.

        Raises WireError at a length over the cap or an unknown kind; nothing can be read after it.
        """
        if self._partial:
            data = self._partial + data
        frames: list[Frame] = []
        start, size = 0, len(data)
        while size - start >= HEADER.size:
            length, kind, stream = HEADER.unpack_from(data, start)
            if length > MAX_BODY:
                raise WireError(f"a frame announces {length} bytes, over the cap of {MAX_BODY}")
            if kind not in _KINDS:
                raise WireError(f"a frame of unknown kind {kind}")
            end = start + HEADER.size + length
            if end > size:
                break
            frames.append(Frame(kind, stream, data[start + HEADER.size : end]))
            start = end
        self._partial = data[start:]
        return frames
