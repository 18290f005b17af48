"""All known formats, in the order in which a template is searched for their marks."""

from collections.abc import Mapping

from dynemo.answer.formats.known.code import CODE
from dynemo.answer.formats.known.named import NAMED
from dynemo.answer.formats.known.objects import OBJECTS
from dynemo.answer.formats.known.reasoning import REASONING
from dynemo.answer.formats.known.row import ReasoningRow, ToolRow
from dynemo.answer.formats.known.tags import TAGS

#: The first format whose marks all stand in a template, and which reads what the template renders,
#: is the model's. So `<tool_call>`, which many share, comes after what they do not share.
TOOLS: Mapping[str, ToolRow] = {row.format.name: row for row in (*TAGS, *NAMED, *CODE, *OBJECTS)}

REASONINGS: Mapping[str, ReasoningRow] = {row.format.name: row for row in REASONING}
