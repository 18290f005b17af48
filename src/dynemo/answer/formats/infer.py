"""Infers how a model calls tools from how its template renders a call."""

from dynemo.answer.formats.format import ToolFormat
from dynemo.answer.formats.probe import CallProbe


def infer_tools(probe: CallProbe) -> ToolFormat | None:
    """Returns a format, which the caller must prove, or None."""
    if not probe.one:
        return None
    return None
