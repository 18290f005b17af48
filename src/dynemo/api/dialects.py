"""The dialects that the server speaks. The first one writes the errors of unknown paths."""

from dynemo.api.dialect import Dialect
from dynemo.api.openai.dialect import OPENAI

DIALECTS: tuple[Dialect, ...] = (OPENAI,)


def dialect_of(path: str) -> Dialect:
    """The dialect in which an error under this path is written."""
    found = (dialect for dialect in DIALECTS if f"{path}/".startswith(dialect.prefix))
    return max(found, key=lambda dialect: len(dialect.prefix), default=DIALECTS[0])
