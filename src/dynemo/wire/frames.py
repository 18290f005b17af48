"""Frames: the bytes of one connection, cut into (kind, stream, body). Sans I/O.

A frame is a header of 13 bytes, big-endian, and a body:

    length  u32   of the body, at most MAX_BODY, checked before anything is kept
    kind    u8    one of FrameKind, or a kind of a later release, which `wire/state.py` skips
    stream  u64   chosen by the client; 0 is the connection itself
    body          msgpack
"""

from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from dynemo.errors import WireError

HEADER = Struct("!IBQ")
MAX_BODY = 16 * 1024 * 1024


class FrameKind(IntEnum):
    """Protocol 1 closes a connection that carries another kind."""

    HELLO = 1  # a Hello or a Greeting: the server's first frame
    OPEN = 2  # from a worker: a stream's one-time token; to a dialled worker: an Envelope
    REQUEST = 3  # a Request to answer on this stream
    DATA = 4  # a Delta
    END = 5  # a FinalDelta: the last delta of a stream, which has its finish
    ERROR = 6  # a Failure instead of END; on stream 0, of the connection
    CANCEL = 7  # the client no longer waits for this stream
    PING = 8
    PONG = 9  # the answer to PING; from a server with a Load
    GOAWAY = 10  # send no further requests; on a stream: ask another instance for the rest


class Frame(NamedTuple):
    kind: int
    stream: int
    body: bytes


_SIZE = HEADER.size
_pack = HEADER.pack
_unpack_from = HEADER.unpack_from
#: Makes a Frame of a tuple in a third of the time that its own constructor takes.
_frame = tuple.__new__


def header(kind: FrameKind, stream: int, body: bytes) -> bytes:
    """The bytes before the body. Raises WireError for a body over the cap."""
    if len(body) > MAX_BODY:
        raise WireError(f"The body of a frame has {len(body)} bytes, over the cap of {MAX_BODY}.")
    return _pack(len(body), kind, stream)


def encode(kind: FrameKind, stream: int, body: bytes = b"") -> bytes:
    """The bytes of one frame. Raises WireError for a body over the cap."""
    return header(kind, stream, body) + body


class FrameReader:
    """Takes bytes as they arrive, gives frames as they complete. Keeps at most one partial frame.

    It joins the pieces of a partial frame once, when the frame is complete. Joining at each read
    would copy a body of 16 MiB some hundred times.
    """

    def __init__(self, max_body: int = MAX_BODY) -> None:
        #: May be changed between two calls of `feed`.
        self.max_body = max_body
        self._pieces: list[bytes] = []
        self._held = 0
        self._needed = 0  # bytes, before the next frame can be cut

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, in order.

        Raises WireError at a length over the cap; nothing can be read after it.
        """
        if self._pieces:
            self._pieces.append(data)
            self._held += len(data)
            if self._held < self._needed:
                return []
            data = b"".join(self._pieces)
            self._pieces = []
        frames: list[Frame] = []
        max_body = self.max_body
        start, size, needed = 0, len(data), _SIZE
        while start + _SIZE <= size:
            length, kind, stream = _unpack_from(data, start)
            if length > max_body:
                raise WireError(f"A frame announces {length} bytes, over the cap of {max_body}.")
            body = start + _SIZE
            end = body + length
            if end > size:
                needed = end - start
                break
            frames.append(_frame(Frame, (kind, stream, data[body:end])))
            start = end
        if start < size:
            self._pieces, self._held, self._needed = [data[start:]], size - start, needed
        return frames
