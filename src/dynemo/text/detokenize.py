"""Token ids to text, piece by piece, equal to decoding them all at once.

Most vocabularies are byte-level: a token is a run of bytes, and the text is the UTF-8 reading of
all bytes. `ByteDetokenizer` holds back only the bytes of a character that is not complete yet.
"""

from codecs import utf_8_decode
from collections.abc import Callable, Sequence


class ByteDetokenizer:
    """The text of a stream whose tokens are runs of bytes.

    `bytes_of` gives a token's bytes, empty for a token that has no text (control tokens). Bytes
    that can never become valid UTF-8 turn into U+FFFD by maximal subparts, as Python's and Rust's
    lossy decoding both do; bytes that a later token may complete are held back.
    """

    __slots__ = ("_bytes_of", "_pending")

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of
        self._pending = b""

    def feed(self, ids: Sequence[int]) -> str:
        data = b"".join(map(self._bytes_of, ids))
        if self._pending:
            data = self._pending + data
        text, used = utf_8_decode(data, "replace", False)
        self._pending = data[used:]
        return text

    def flush(self) -> str:
        text, _ = utf_8_decode(self._pending, "replace", True)
        self._pending = b""
        return text
