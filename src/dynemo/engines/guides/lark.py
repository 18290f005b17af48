"""Writes guides as grammars in llguidance's dialect of Lark, which every engine here can follow."""

from msgspec import DecodeError

from dynemo.engines.guides.json_schema import check_size, written_out
from dynemo.engines.guides.verdict import GuideRefused
from dynemo.foreign import decode_json
from dynemo.limits import GUIDE_CHARACTERS, GUIDE_CHOICES

#: The start of a grammar for llguidance. Without it llama.cpp and vLLM take a grammar as GBNF.
LLGUIDANCE = "%llguidance"
#: Without it the model may put any white space between the parts of its JSON, and some do not stop.
_COMPACT = '"x-guidance":{"whitespace_flexible":false}'
#: The key with which a schema itself says how llguidance shall follow it.
_OWN_KEY = "x-guidance"


def as_lark(kind: str, text: str) -> str:
    """Returns a guide of any kind but `grammar` and `structural_tag` as a Lark grammar.

    Raises GuideRefused.
    """
    match kind:
        case "json_schema":
            lark = f"start: %json {compact_schema(text)}"
        case "regex":
            lark = f"start: {_regex(text)}"
        case "choice":
            # One regex, because a grammar may have only some 2,000 alternatives at one place.
            choices = map(regex_literal, read_choices(text))
            lark = f"start: {lark_regex('|'.join(choices))}"
        case _:
            lark = text
    return lark if lark.startswith(LLGUIDANCE) else f"{LLGUIDANCE} {{}}\n{lark}"


def compact_schema(text: str) -> str:
    """Returns a JSON schema whose answers have no white space, unless it says otherwise itself.

    Raises GuideRefused if it is too large.
    """
    check_size(text)
    schema = decode_json(text, object)
    if not isinstance(schema, dict):
        return text if schema is False else f"{{{_COMPACT}}}"
    if _OWN_KEY in schema:
        return text
    inner = text.strip()[1:]
    return f"{{{_COMPACT}{',' if schema else ''}{inner}"


def read_choices(text: str) -> list[str]:
    """Returns the choices of a guide, each once. Raises GuideRefused."""
    try:
        choices = list(dict.fromkeys(decode_json(text, list[str])))
    except DecodeError as error:
        raise GuideRefused(f"it is not a JSON list of texts ({error})") from None
    if not choices:
        raise GuideRefused("it has no choice")
    if len(choices) > GUIDE_CHOICES:
        raise GuideRefused(f"it may have {GUIDE_CHOICES} choices")
    if any(len(choice) > GUIDE_CHARACTERS for choice in choices):
        raise GuideRefused(f"a choice may have {GUIDE_CHARACTERS} characters")
    return choices


def regex_literal(text: str) -> str:
    """The regex of exactly one text. No character in it has a meaning in a regex or in Lark."""
    return "".join(
        character if character.isalnum() or character == " " else f"\\x{{{ord(character):x}}}"
        for character in text
    )


def lark_regex(pattern: str) -> str:
    """A regex as a terminal of Lark, which ends at a slash and stands on one line."""
    if not pattern:
        return '""'
    written: list[str] = []
    is_escaped = False
    for character in pattern:
        if is_escaped:
            written.append(character)
            is_escaped = False
        elif character == "\\":
            written.append(character)
            is_escaped = True
        else:
            written.append({"/": r"\/", "\n": r"\n", "\r": r"\r"}.get(character, character))
    return f"/{''.join(written)}/"


def _regex(pattern: str) -> str:
    if written_out(pattern) > GUIDE_CHARACTERS:
        raise GuideRefused(f"it may have {GUIDE_CHARACTERS} characters when repeated")
    return lark_regex(pattern)
