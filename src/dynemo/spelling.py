"""Helpers for messages: quoted values, reasons, lists, and the name that a user probably meant."""

from collections.abc import Iterable

#: Two swapped letters of three are near (`tsl`). A few letters in common are not.
_CUTOFF = 0.66
#: The cutoff for a single word of a name (`modle` of `--model-path`), which must be more similar.
_WORD_CUTOFF = 0.8

# C0 controls become their pictures (ESC becomes a small sign), C1 controls the replacement
# character. A carriage return would let text overwrite the text before it. The last ones change the
# direction of writing, and so show text in another order than it has.
_DIRECTIONS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_BEYOND_C0 = (0x7F, *range(0x80, 0xA0), 0x2028, 0x2029, *_DIRECTIONS)
_VISIBLE: dict[int, int | str | None] = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n\r"},
    0x0D: None,
    **{code: f"\\u{code:04x}" for code in _BEYOND_C0},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
}
_ESCAPED = {code: f"\\u{code:04x}" for code in _BEYOND_C0}


def unknown(
    kind: str,
    written: str,
    names: Iterable[str],
    *,
    prefix: str = "",
    place: str = "",
    otherwise: str = "",
) -> str:
    """Returns a message such as `Unknown flag "--modle"; did you mean "--model-path"?`.

    If no name is near, it lists all names, or says `otherwise`. `prefix` is added to every name and
    does not count for the similarity. `place` follows the unknown name.
    """
    known = list(names)
    near = nearest(written, known)
    if near:
        hint = f"did you mean {quoted(prefix + near)}?"
    else:
        hint = otherwise or f"choose one of {', '.join(prefix + name for name in known)}."
    return f"Unknown {kind} {quoted(prefix + written)}{place}; {hint}"


def either(names: Iterable[str]) -> str:
    """Returns `a`, `a or b`, or `a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def nearest(written: str, names: Iterable[str]) -> str | None:
    """Returns the one of `names` that is nearest to `written`, or None if no name is near.

    A name is near if its spelling is similar, or if it has every word of `written` (`--port` of
    `--http-port`). Dashes and underscores are ignored.
    """
    import difflib  # imported here because only mistakes need it

    letters = {name: "".join(_words(name)) for name in names}
    wanted = _words(written)
    near = difflib.get_close_matches("".join(wanted), letters.values(), 1, _CUTOFF)
    for name, spelled in letters.items():
        if near and spelled == near[0]:
            return name
    return next((name for name in letters if _has_words(wanted, _words(name))), None)


def _has_words(wanted: list[str], words: list[str]) -> bool:
    """Whether `words` has each wanted word. A long one may differ slightly."""
    from difflib import get_close_matches

    return bool(wanted) and all(
        word in words or (len(word) > 4 and get_close_matches(word, words, 1, _WORD_CUTOFF))
        for word in wanted
    )


def with_reason(statement: str, reason: str) -> str:
    """Returns `It waits: loading.` for a word, and `It waits. It loads.` for a sentence."""
    return f"{statement}. {reason}" if reason.endswith(".") else f"{statement}: {reason}."


def shortened(text: str, most: int) -> str:
    """Returns a text of at most `most` characters, and dots if some are left out."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def quoted(value: str) -> str:
    """Returns a value as messages show it: in double quotes, on one line."""
    import json  # imported here because only mistakes need it

    return visible_json(json.dumps(value, ensure_ascii=False))


def visible(text: str) -> str:
    """Returns `text` with visible control characters. Only newlines and tabs keep their effect.

    Text of files, models, clients and other processes goes through this function on its way to a
    terminal or a log. A terminal would obey its control characters: move the cursor, or write to
    the clipboard.
    """
    return text if text.isprintable() else text.translate(_VISIBLE)


def visible_json(text: str) -> str:
    """Returns the same JSON with escapes for the control characters that JSON allows."""
    return text if text.isprintable() else text.translate(_ESCAPED)


def _words(name: str) -> list[str]:
    return name.lower().replace("_", "-").strip("-").split("-")
