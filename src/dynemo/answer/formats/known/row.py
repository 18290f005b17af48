"""One row of the tables of known formats."""

from msgspec import Struct

from dynemo.answer.formats.format import ReasoningFormat, ToolFormat


class ReasoningRow(Struct, frozen=True):
    format: ReasoningFormat
    marks: tuple[str, ...]  #: all of them stand in the template of a model that writes so
    families: str


class ToolRow(Struct, frozen=True):
    format: ToolFormat
    marks: tuple[str, ...]  #: all of them stand in the template of a model that writes so
    families: str
    source: str = "template"  #: what the row was made from: a model's template, or documentation
