"""Reads envelopes. Every client of the request plane can write one."""

from msgspec import DecodeError

from dynemo.foreign import msgpack_decoder
from dynemo.limits import ADDRESS_CHARACTERS
from dynemo.messages.wire import Envelope

_decode = msgpack_decoder(Envelope)

_KEY_BYTES = 32
_TOKEN_BYTES = 64
_HOST_CHARACTERS = 64
_STREAMS = 2**63


def read_envelope(body: bytes) -> Envelope:
    """Raises DecodeError."""
    envelope = _decode(body)
    # The key is the only part of our HELLO that the sender chooses.
    if len(envelope.key) != _KEY_BYTES or not 0 < len(envelope.token) <= _TOKEN_BYTES:
        raise DecodeError("Its key or its token has a wrong length")
    if not 0 < envelope.stream < _STREAMS:
        raise DecodeError("It has a wrong number of a stream")
    texts = (*envelope.addresses, envelope.loopback)
    if len(envelope.host) > _HOST_CHARACTERS or max(map(len, texts)) > ADDRESS_CHARACTERS:
        raise DecodeError("An address in it is too long")
    return envelope
