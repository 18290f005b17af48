"""The build of llguidance inside an engine, through its C interface.

An engine uses llguidance to restrict an answer to a JSON schema. The extension modules of xllamacpp
and mistralrs export the functions of their builds. Another version of the library would
judge some schemas differently. The structures grow only at their ends, so here they are followed by
zeros.
"""

import ctypes
from functools import cache
from typing import Any

from dynemo.engines.guides.verdict import GuideRefused

_END = 255  #: the id of the token that ends an answer; the lower ids are the bytes
_END_BYTES = b"\xff<end>"  #: 0xFF marks a special token; it never occurs in UTF-8 text
_WHERE = "failed to compile JSON schema: "

_Ids = ctypes.POINTER(ctypes.c_uint32)
_TokenizeFunction = ctypes.CFUNCTYPE(
    ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, _Ids, ctypes.c_size_t
)


class NotExported(Exception):
    """This build does not export llguidance."""


class _TokenizerInit(ctypes.Structure):
    _fields_ = (
        ("vocab_size", ctypes.c_uint32),
        ("tok_eos", ctypes.c_uint32),
        ("token_lens", _Ids),
        ("token_bytes", ctypes.c_char_p),
        ("tokenizer_json", ctypes.c_char_p),
        ("tokenize_assumes_string", ctypes.c_bool),
        ("tokenize_fn", ctypes.c_void_p),
        ("use_approximate_greedy_tokenize_fn", ctypes.c_bool),
        ("tokenize_user_data", ctypes.c_void_p),
        ("slices", ctypes.c_void_p),
        ("later_versions", ctypes.c_char * 256),
    )


class _ConstraintInit(ctypes.Structure):
    _fields_ = (
        ("tokenizer", ctypes.c_void_p),
        ("log_buffer_level", ctypes.c_uint32),
        ("log_stderr_level", ctypes.c_uint32),
        ("limits_and_later_versions", ctypes.c_char * 512),
    )


class GuideMatcher:
    """Matches one text, byte by byte, against a grammar. Call `close` at the end.

    Only one thread at a time may use it.
    """

    def __init__(
        self, library: ctypes.CDLL, kind: str, grammar: str, *, is_forcing: bool = False
    ) -> None:
        """Raises GuideRefused.

        With `is_forcing`, llguidance tokenizes the text that the grammar forces, as it does in an
        engine.
        """
        init, self._longest = _constraint(library, is_forcing)
        self._longest.value = 0
        self._library = library
        self._pointer: int | None = library.llg_new_matcher(
            ctypes.byref(init), kind.encode(), grammar.encode()
        )
        if not library.llg_matcher_get_error(self._pointer):
            library.llg_matcher_compute_mask(self._pointer)
        if problem := self.problem():
            self.close()
            raise GuideRefused(problem)

    def feed(self, data: bytes) -> int:
        """Consumes the leading bytes of `data` that follow the grammar. Returns their number."""
        ids = (ctypes.c_uint32 * len(data))(*data)
        count: int = self._library.llg_matcher_validate_tokens(self._pointer, ids, len(data))
        if count > 0 and self._library.llg_matcher_consume_tokens(self._pointer, ids, count) == 0:
            return count
        return 0

    def allowed(self) -> bytes:
        """Returns the bytes that may follow."""
        if self._library.llg_matcher_compute_mask(self._pointer):
            return b""
        mask = self._library.llg_matcher_get_mask(self._pointer)
        return bytes(byte for byte in range(_END) if mask[byte // 32] >> byte % 32 & 1)

    def forced(self) -> int:
        """Returns the bytes of the longest text that was tokenized (see `is_forcing`)."""
        return self._longest.value

    def reset(self) -> None:
        self._library.llg_matcher_reset(self._pointer)

    def is_complete(self) -> bool:
        """Whether the answer may end here."""
        return bool(self._library.llg_matcher_is_accepting(self._pointer))

    def problem(self) -> str:
        """Returns why llguidance gave up, without a full stop, or ""."""
        error = self._library.llg_matcher_get_error(self._pointer)
        return reason_of(error.decode(errors="replace")) if error else ""

    def close(self) -> None:
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            self._library.llg_free_matcher(pointer)

    def __del__(self) -> None:  # of a matcher whose request was cancelled before it could close it
        self.close()


@cache
def load_llguidance(path: str) -> ctypes.CDLL:
    """Loads the functions from an engine's extension module. Raises NotExported."""
    library = ctypes.CDLL(path)  # if it is loaded already, this only finds its symbols
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    signatures = {
        "llg_new_tokenizer": (pointer, [pointer, ctypes.c_char_p, size]),
        "llg_constraint_init_set_defaults": (None, [pointer, pointer]),
        "llg_new_matcher": (pointer, [pointer, ctypes.c_char_p, ctypes.c_char_p]),
        "llg_matcher_get_error": (ctypes.c_char_p, [pointer]),
        "llg_matcher_compute_mask": (ctypes.c_int32, [pointer]),
        "llg_matcher_get_mask": (_Ids, [pointer]),
        "llg_matcher_validate_tokens": (ctypes.c_int32, [pointer, pointer, size]),
        "llg_matcher_consume_tokens": (ctypes.c_int32, [pointer, pointer, size]),
        "llg_matcher_is_accepting": (ctypes.c_bool, [pointer]),
        "llg_matcher_reset": (ctypes.c_int32, [pointer]),
        "llg_free_matcher": (None, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise NotExported(name) from None
        function.restype, function.argtypes = result, arguments
    return library


def _tokenize(longest: int, data: int, length: int, ids: Any, most: int) -> int:
    """Gives the bytes as tokens, as a tokenizer of an engine does with its own tokens."""
    counter = ctypes.c_size_t.from_address(longest)
    counter.value = max(counter.value, length)
    count = min(length, most)
    if count:
        address = ctypes.addressof(ids.contents)
        (ctypes.c_uint32 * count).from_address(address)[:] = list(ctypes.string_at(data, count))
    return length


_TOKENIZE = _TokenizeFunction(_tokenize)


@cache
def _constraint(library: ctypes.CDLL, is_forcing: bool) -> tuple[_ConstraintInit, ctypes.c_size_t]:
    """Returns the settings of each matcher, and where `_tokenize` writes.

    Tokens are bytes, and nothing is logged.
    """
    longest = ctypes.c_size_t()
    tokens = [*(bytes([byte]) for byte in range(_END)), _END_BYTES]
    tokenizer_init = _TokenizerInit(
        vocab_size=len(tokens),
        tok_eos=_END,
        token_lens=(ctypes.c_uint32 * len(tokens))(*map(len, tokens)),
        token_bytes=b"".join(tokens),
        tokenize_assumes_string=is_forcing,
        tokenize_fn=ctypes.cast(_TOKENIZE, ctypes.c_void_p) if is_forcing else None,
        use_approximate_greedy_tokenize_fn=not is_forcing,
        tokenize_user_data=ctypes.addressof(longest),
    )
    tokenizer = library.llg_new_tokenizer(ctypes.byref(tokenizer_init), None, 0)
    assert tokenizer, "llguidance refuses a vocabulary of bytes"
    init = _ConstraintInit()
    library.llg_constraint_init_set_defaults(ctypes.byref(init), tokenizer)
    init.log_buffer_level = init.log_stderr_level = 0
    return init, longest


def reason_of(error: str) -> str:
    """Returns the first line of llguidance's error.

    For a pattern the cause is below a drawing of the position, so that line is appended.
    """
    lines = error.split(_WHERE)[-1].splitlines()
    if lines[0] == "NoExtensionBias":  # of a schema whose only part is itself
        return "no answer could begin"
    below = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return " ".join([lines[0], *below[:1]])
