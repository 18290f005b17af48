"""Helpers for messages: quoted values, reasons, lists, and the name that a user probably meant."""

from collections.abc import Iterable

#: Two swapped letters of three are near (`tsl`). A few letters in common are not.
_CUTOFF = 0.66
#: The cutoff for a single word of a name (`modle` of `--model-path`), which must be more similar.
_WORD_CUTOFF = 0.8


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

    return json.dumps(value, ensure_ascii=False)


def _words(name: str) -> list[str]:
    return name.lower().replace("_", "-").strip("-").split("-")
