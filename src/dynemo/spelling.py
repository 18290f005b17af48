"""Which name somebody meant who wrote another one."""

import difflib
from collections.abc import Iterable

#: Three letters of which two changed places are near (`tsl`), a handful in common is not.
_CUTOFF = 0.66


def nearest(written: str, names: Iterable[str]) -> str | None:
    """The one of `names` that is spelled nearly so, or has every word that was written in it
    (`--port` of `--http-port`); None where there is none. Dashes and underscores are no letters.
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
