"""Packs the model card into bytes, so that an ingress needs none of a worker's files.

    "DYNCARD" | version u8 | zlib( msgpack of `_Wire` )

A tokenizer travels as its source. The receiver builds it again, so both ends run the same code over
the same tables. Equal cards have equal bytes.

Readers skip the fields that they do not know, so a new field needs no new version. The version says
which readers can read the card at all: it grows only if older readers would misread it.
"""

import zlib
from typing import Any

from msgspec import MsgspecError, Struct, ValidationError, convert, msgpack

from dynemo.answer.formats.choose import choose_format
from dynemo.answer.formats.format import Format
from dynemo.errors import DynemoError, ModelError
from dynemo.foreign import msgpack_decoder
from dynemo.messages.ask import Ask, set_fields
from dynemo.prompt.card.card import Card, with_format
from dynemo.prompt.template import ChatTemplate
from dynemo.spelling import quoted
from dynemo.tokenizers.load import load
from dynemo.tokenizers.source import GgufSource, TokenizerSource

#: The size limit of a card, both packed and unpacked. The largest `tokenizer.json` is about 35 MB.
MAX_CARD = 64 << 20
VERSION = 1  #: of the cards that this release writes, and the newest that it reads
_MAGIC = b"DYNCARD"
#: Level 1 compresses a 17 MB tokenizer to a quarter in 0.1 s. Higher levels take five times as long
#: and gain little.
_LEVEL = 1


class _Wire(Struct, frozen=True, kw_only=True):
    name: str
    architecture: str
    tokenizer: TokenizerSource
    templates: dict[str, str]
    special_tokens: dict[str, str]
    eos_ids: list[int]
    context_length: int
    kv_bytes_per_token: int
    defaults: dict[str, Any]  #: fields of `Ask`; a reader skips unknown ones
    format: Format | None = None  #: None: from a release that reads no tools and no reasoning


_encode = msgpack.Encoder().encode
_decode = msgpack_decoder(_Wire)


def pack_card(card: Card) -> bytes:
    """Packs a card for `unpack_card`.

    Raises ModelError if the card is too large, holds invalid Unicode, or its tokenizer file can no
    longer be read.
    """
    source = card.tokenizer.source()
    wire = _Wire(
        name=card.name,
        architecture=card.architecture,
        tokenizer=GgufSource(_packable(source.metadata))
        if isinstance(source, GgufSource)
        else source,
        templates=dict(card.template.sources),
        special_tokens=dict(card.template.special_tokens),
        eos_ids=list(card.eos_ids),
        context_length=card.context_length,
        kv_bytes_per_token=card.kv_bytes_per_token,
        defaults=set_fields(card.defaults),
        format=card.format,
    )
    try:
        body = _encode(wire)
    except (UnicodeEncodeError, OverflowError, TypeError) as error:
        raise ModelError(
            f"The card of {quoted(card.name)} cannot be shared with other processes: {error}."
        ) from None
    if len(body) > MAX_CARD:
        raise ModelError(
            f"The card of {quoted(card.name)} has {len(body):,} bytes, but at most {MAX_CARD:,} "
            "can be shared with other processes."
        )
    return _MAGIC + bytes([VERSION]) + zlib.compress(body, _LEVEL)


def unpack_card(data: bytes) -> Card:
    """Returns the packed card, with its tokenizer loaded and its template compiled.

    Raises ModelError if the data is not a card, is damaged, too large, or of a newer version.
    """
    body = _body(data)
    try:
        wire = _decode(body)
    except ValidationError as error:
        raise ModelError(
            f"The registered model card has a value that this dynemo-run does not know: {error}. "
            "Upgrade this dynemo-run to the release of the model's workers."
        ) from error
    except MsgspecError as error:
        raise _damaged(str(error)) from error
    try:
        template = ChatTemplate(wire.templates, special_tokens=wire.special_tokens)
        card = Card(
            wire.name,
            wire.architecture,
            load(_unpacked(wire.tokenizer)),
            template,
            tuple(wire.eos_ids),
            wire.context_length,
            wire.kv_bytes_per_token,
            _defaults(wire.defaults),
        )
        return with_format(card, wire.format or choose_format(template))
    except DynemoError:
        raise
    except (MsgspecError, ValueError, TypeError, LookupError, AttributeError) as error:
        # Tables of the wrong shape raise wherever a loader first reads them.
        raise _damaged(str(error)) from error


def _defaults(given: dict[str, Any]) -> Ask:
    known = {name: value for name, value in given.items() if name in Ask.__struct_fields__}
    return convert(known, Ask)


def _body(data: bytes) -> bytes:
    head, version = data[: len(_MAGIC)], data[len(_MAGIC) : len(_MAGIC) + 1]
    if head != _MAGIC or not version:
        raise _damaged("it is not a model card")
    if version[0] > VERSION:
        raise ModelError(
            f"The registered model card has version {version[0]}, but this dynemo-run reads "
            f"versions up to {VERSION}. Upgrade this dynemo-run."
        )
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(data[len(_MAGIC) + 1 :], MAX_CARD + 1)
    except zlib.error as error:
        raise _damaged(str(error)) from None
    if len(body) > MAX_CARD:
        raise _damaged(f"it has more than {MAX_CARD:,} bytes")
    if not inflater.eof or inflater.unused_data:
        raise _damaged("it is truncated" if not inflater.eof else "extra data follows its end")
    return body


def _damaged(reason: str) -> ModelError:
    return ModelError(
        f"The registered model card cannot be read: {reason}. Restart the model's workers."
    )


def _packable(metadata: dict[str, Any]) -> dict[str, Any]:
    """Converts text of a GGUF that is not UTF-8, and so holds surrogates, to bytes."""
    return {key: _bytes_for(value) for key, value in metadata.items()}


def _bytes_for(value: Any) -> Any:
    if isinstance(value, str):
        return value if _is_utf8(value) else _to_bytes(value)
    if isinstance(value, list) and value and isinstance(value[0], str):
        return value if _is_utf8("".join(value)) else list(map(_to_bytes, value))
    return value


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _to_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _unpacked(source: TokenizerSource) -> TokenizerSource:
    return (
        GgufSource({key: _text_for(value) for key, value in source.metadata.items()})
        if isinstance(source, GgufSource)
        else source
    )


def _text_for(value: Any) -> Any:
    if isinstance(value, bytes):
        return _to_text(value)
    if isinstance(value, list) and value and isinstance(value[0], bytes):
        return list(map(_to_text, value))
    return value
