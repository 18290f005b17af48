"""Which name was meant by one that does not exist, and the sentence that says so."""

import difflib
from collections.abc import Iterable

#: Three letters of which two changed places are near (`tsl`), a handful in common is not.
_CUTOFF = 0.66


def unknown(
    kind: str, written: str, names: Iterable[str], *, place: str = "", otherwise: str = ""
) -> str:
    """`Unknown flag "--modle"; did you mean "--model-path"?`

    If no name is near, the names are listed, or `otherwise` says what to do. `place` follows the
    name that was written, with a space before it.
    """
    known = list(names)
    near = nearest(written, known)
    hint = f'did you mean "{near}"?' if near else otherwise or f"choose one of {', '.join(known)}."
    return f'Unknown {kind} "{written}"{place}; {hint}'


def either(names: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def nearest(written: str, names: Iterable[str]) -> str | None:
    """The name that is spelled almost like `written`, or that contains every word of it (`--port`
    finds `--http-port`); None if there is no such name. Dashes and underscores are ignored.
    """
    letters = {name: "".join(_words(name)) for name in names}
    wanted = _words(written)
    near = difflib.get_close_matches("".join(wanted), letters.values(), 1, _CUTOFF)
    for name, spelled in letters.items():
        if near and spelled == near[0]:
            return name
    return next((name for name in letters if wanted and set(wanted) <= set(_words(name))), None)


def _words(name: str) -> list[str]:
    return name.lower().replace("_", "-").strip("-").split("-")
