"""A chat with a scripted model. The test holds the other end of its terminal."""

import asyncio
import fcntl
import logging
import sys
import termios

from dynemo.answer.formats.format import Format
from dynemo.answer.formats.known.table import REASONINGS, TOOLS
from dynemo.errors import EngineLost, Unavailable
from dynemo.messages.answer import ArgumentsPiece, ReasoningPiece, ToolCallPiece
from dynemo.messages.ask import Ask, ReasoningPart, ToolResultPart
from dynemo.terminal.chat.run import chat
from support.scripted_pipeline import Script, ScriptedPipeline, said, words

logging.basicConfig(stream=sys.stderr, format="LOG %(message)s")
log = logging.getLogger("dynemo.engine")
down: list[int] = []


def call(number: int, city: str) -> Script:
    return [
        ToolCallPiece(0, number, f"id{number}", "get_weather"),
        ArgumentsPiece(0, number, '{"city": ', 1),
        ArgumentsPiece(0, number, f'"{city}"}}', 1),
    ]


def thoughts(ask: Ask) -> list[str]:
    parts = [part for turn in ask.turns for part in turn.parts]
    return [part.text for part in parts if isinstance(part, ReasoningPart)]


def from_results(ask: Ask) -> Script:
    """Says the results. `again` as a result leads to another call, `fail` once to an error."""
    results = [
        part for turn in ask.turns for part in turn.parts if isinstance(part, ToolResultPart)
    ]
    if results[-1].text == "again":
        return call(0, "Rome")
    if results[-1].text == "fail" and not down:
        down.append(1)
        return [EngineLost("The engine ended.")]
    return ["Results: ", repr([(part.call_id, part.text) for part in results])]


def answer(ask: Ask) -> Script:
    return from_results(ask) if ask.turns[-1].role == "tool" else from_question(ask)


def from_question(ask: Ask) -> Script:
    question = said(ask.turns[-1])
    match question.split():
        case ["slow", *_]:
            return [piece for i in range(500) for piece in (f"w{i} ", 0.02)]
        case ["soon", *_]:
            return ["thinking ", 0.5, "done"]
        case ["escape", *_]:
            return ["\x1b]0;title\x07"]
        case ["crash", *_]:
            log.error("The engine ended with signal SIGKILL.")
            asyncio.get_running_loop().call_later(0.3, log.error, "The engine is back.")
            return ["half ", 0.05, "way ", EngineLost("The engine ended.")]
        case ["down", *_] if not down:
            down.append(1)
            pipeline.troubles += ["loading"] * 5
            return [Unavailable("The model takes no requests now.")]
        case ["weather", *cities]:
            thought = ReasoningPiece(0, f"I know {[tool.name for tool in ask.tools or ()]}.", 1)
            return [thought, *(step for i, city in enumerate(cities) for step in call(i, city))]
        case ["think", *_]:
            return [ReasoningPiece(0, "Hmm.", 1), "Yes."]
        case ["cut", *_]:
            return [*call(0, "Paris"), 0.05, EngineLost("The engine ended.")]
        case ["thoughts", *_]:
            return [repr(thoughts(ask))]
        case ["history", *_]:
            return [f"[{len(ask.turns)}: {said(ask.turns[0])}]"]
        case ["raw", *_]:
            return [repr(question)]
    return words(ask)


# This process controls the terminal, so that Ctrl-C there signals this process.
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
format = Format(REASONINGS["think"].format, TOOLS["hermes"].format)
pipeline = ScriptedPipeline(answer=answer, context_length=100, format=format)
asyncio.run(chat(pipeline, model="stub", system="Be brief.", settings=Ask()))
print(f"left, {pipeline.running} running, {pipeline.closed_early} stopped")
