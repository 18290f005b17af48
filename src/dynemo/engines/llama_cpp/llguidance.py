"""The build of llguidance inside llama.cpp, through its C interface.

llama.cpp uses llguidance to restrict an answer to a JSON schema, and xllamacpp's extension module
exports the functions of that build. Another version of the library would judge some schemas
differently. The two structures grow only at their ends, so here they are followed by zeros.
"""

import ctypes
from functools import cache

_KIND = b"lark"  #: the kind of grammar that llama.cpp passes to llguidance
_END = 255  #: the id of the token that ends an answer; the lower ids are the bytes
_END_BYTES = b"\xff<end>"  #: 0xFF marks a special token; it never occurs in UTF-8 text
_WHERE = "failed to compile JSON schema: "


class SchemaRefused(Exception):
    """The reason why a grammar is refused, as a clause without a full stop."""


class NotExported(Exception):
    """This build of xllamacpp does not export llguidance."""


class _TokenizerInit(ctypes.Structure):
    _fields_ = (
        ("vocab_size", ctypes.c_uint32),
        ("tok_eos", ctypes.c_uint32),
        ("token_lens", ctypes.POINTER(ctypes.c_uint32)),
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

    def __init__(self, grammar: str) -> None:
        """Raises SchemaRefused or NotExported."""
        self._library = library = _load()
        self._pointer = library.llg_new_matcher(
            ctypes.byref(_constraint()), _KIND, grammar.encode()
        )
        if not library.llg_matcher_get_error(self._pointer):
            library.llg_matcher_compute_mask(self._pointer)
        if problem := self.problem():
            self.close()
            raise SchemaRefused(problem)

    def feed(self, data: bytes) -> int:
        """Consumes the leading bytes of `data` that follow the grammar. Returns their number."""
        ids = (ctypes.c_uint32 * len(data))(*data)
        count: int = self._library.llg_matcher_validate_tokens(self._pointer, ids, len(data))
        if count > 0 and self._library.llg_matcher_consume_tokens(self._pointer, ids, count) == 0:
            return count
        return 0

    def is_complete(self) -> bool:
        """Whether the answer may end here."""
        return bool(self._library.llg_matcher_is_accepting(self._pointer))

    def problem(self) -> str:
        """Returns why llguidance gave up, without a full stop, or ""."""
        error = self._library.llg_matcher_get_error(self._pointer)
        return _reason(error.decode(errors="replace")) if error else ""

    def close(self) -> None:
        pointer, self._pointer = self._pointer, None
        self._library.llg_free_matcher(pointer)  # accepts NULL


@cache
def _load() -> ctypes.CDLL:
    from xllamacpp import xllamacpp

    library = ctypes.CDLL(xllamacpp.__file__)  # already loaded, so this only finds its symbols
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    signatures = {
        "llg_new_tokenizer": (pointer, [pointer, ctypes.c_char_p, size]),
        "llg_constraint_init_set_defaults": (None, [pointer, pointer]),
        "llg_new_matcher": (pointer, [pointer, ctypes.c_char_p, ctypes.c_char_p]),
        "llg_matcher_get_error": (ctypes.c_char_p, [pointer]),
        "llg_matcher_compute_mask": (ctypes.c_int32, [pointer]),
        "llg_matcher_validate_tokens": (ctypes.c_int32, [pointer, pointer, size]),
        "llg_matcher_consume_tokens": (ctypes.c_int32, [pointer, pointer, size]),
        "llg_matcher_is_accepting": (ctypes.c_bool, [pointer]),
        "llg_free_matcher": (None, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise NotExported(name) from None
        function.restype, function.argtypes = result, arguments
    return library


@cache
def _constraint() -> _ConstraintInit:
    """Returns the settings of each matcher: tokens are bytes, and nothing is logged."""
    library = _load()
    tokens = [*(bytes([byte]) for byte in range(_END)), _END_BYTES]
    tokenizer_init = _TokenizerInit(
        vocab_size=len(tokens),
        tok_eos=_END,
        token_lens=(ctypes.c_uint32 * len(tokens))(*map(len, tokens)),
        token_bytes=b"".join(tokens),
        use_approximate_greedy_tokenize_fn=True,
    )
    tokenizer = library.llg_new_tokenizer(ctypes.byref(tokenizer_init), None, 0)
    assert tokenizer, "llguidance refuses a vocabulary of bytes"
    init = _ConstraintInit()
    library.llg_constraint_init_set_defaults(ctypes.byref(init), tokenizer)
    init.log_buffer_level = init.log_stderr_level = 0
    return init


def _reason(error: str) -> str:
    """Returns the first line of llguidance's error.

    For a pattern the cause is below a drawing of the position, so that line is appended.
    """
    lines = error.split(_WHERE)[-1].splitlines()
    if lines[0] == "NoExtensionBias":  # of a schema whose only part is itself
        return "no answer could begin"
    below = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return " ".join([lines[0], *below[:1]])
