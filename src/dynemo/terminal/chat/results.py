"""Asks the user for the results of tools that the model calls."""

from collections.abc import Sequence

from prompt_toolkit.patch_stdout import patch_stdout

from dynemo.messages.ask import ToolCallPart, ToolResultPart, Turn
from dynemo.spelling import visible
from dynemo.terminal.chat.keyboard import result_session
from dynemo.terminal.log_lines import log_above
from dynemo.terminal.screen import clean, dim


async def ask_results(calls: Sequence[ToolCallPart]) -> list[Turn] | None:
    """Asks the user for the result of each call, in order. None: the user pressed Ctrl-C or
    Ctrl-D."""
    results = []
    for call in calls:
        if len(calls) > 1:
            print(dim(f"→ {call.name} {call.arguments}"), flush=True)
        try:
            with patch_stdout(raw=True), log_above():
                session = result_session(f"Result of {visible(call.name)}: ")
                text = clean(await session.prompt_async())
        except (KeyboardInterrupt, EOFError):
            return None
        results.append(Turn("tool", (ToolResultPart(text, call.id, call.name),)))
    return results
