"""How messages quote a value, and which name a user most likely meant."""

import difflib
import json
from collections.abc import Iterable

#: Two swapped letters of three are near (`tsl`). A few letters in common are not.
_CUTOFF = 0.66


def nearest(written: str, names: Iterable[str]) -> str | None:
    """Returns the one of `names` that is nearest to `written`, or None if no name is near.

    A name is near if its spelling is similar, or if it has every word of `written` (`--port` of
    `--http-port`). Dashes and underscores are ignored.
    """
    letters = {name: "".join(_words(name)) for name in names}
    wanted = _words(written)
    near = difflib.get_close_matches("".join(wanted), letters.values(), 1, _CUTOFF)
    for name, spelled in letters.items():
        if near and spelled == near[0]:
            return name
    return next((name for name in letters if wanted and set(wanted) <= set(_words(name))), None)


def quoted(value: str) -> str:
    """Returns a value as messages show it: in double quotes, on one line."""
    return json.dumps(value, ensure_ascii=False)


def _words(name: str) -> list[str]:
    return name.lower().replace("_", "-").strip("-").split("-")
