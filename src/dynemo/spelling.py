"""How messages quote a value, and name what a user most likely meant by an unknown one."""

from collections.abc import Iterable

#: Two swapped letters of three are near (`tsl`). A few letters in common are not.
_CUTOFF = 0.66


def unknown(
    kind: str,
    written: str,
    names: Iterable[str],
    *,
    prefix: str = "",
    place: str = "",
    otherwise: str = "",
) -> str:
    """`Unknown flag "--modle"; did you mean "--model-path"?`

    If no name is near, the names are listed, or `otherwise` says what to do. `prefix` stands before
    every name and says nothing about which is near; `place` follows the name that was written.
    """
    known = list(names)
    near = nearest(written, known)
    if near:
        hint = f"did you mean {quoted(prefix + near)}?"
    else:
        hint = otherwise or f"choose one of {', '.join(prefix + name for name in known)}."
    return f"Unknown {kind} {quoted(prefix + written)}{place}; {hint}"


def either(names: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def nearest(written: str, names: Iterable[str]) -> str | None:
    """The name that is spelled almost like `written`, or that contains every word of it (`--port`
    finds `--http-port`); None if there is no such name. Dashes and underscores are ignored.
    """
    import difflib  # late: a run without a mistake does not need it

    letters = {name: "".join(_words(name)) for name in names}
    wanted = _words(written)
    near = difflib.get_close_matches("".join(wanted), letters.values(), 1, _CUTOFF)
    for name, spelled in letters.items():
        if near and spelled == near[0]:
            return name
    return next((name for name in letters if wanted and set(wanted) <= set(_words(name))), None)


def quoted(value: str) -> str:
    """Returns a value as messages show it: in double quotes, on one line."""
    import json  # late, as above

    return json.dumps(value, ensure_ascii=False)


def _words(name: str) -> list[str]:
    return name.lower().replace("_", "-").strip("-").split("-")
