"""A chat with a scripted model. The test holds the other end of its terminal."""

import asyncio
import fcntl
import logging
import sys
import termios

from dynemo.errors import EngineLost, Unavailable
from dynemo.messages.ask import Ask
from dynemo.terminal.chat.run import chat
from support.scripted_pipeline import Script, ScriptedPipeline, said, words

logging.basicConfig(stream=sys.stderr, format="LOG %(message)s")
log = logging.getLogger("dynemo.engine")
down: list[int] = []


def answer(ask: Ask) -> Script:
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
        case ["history", *_]:
            return [f"[{len(ask.turns)}: {said(ask.turns[0])}]"]
        case ["raw", *_]:
            return [repr(question)]
    return words(ask)


# This process controls the terminal, so that Ctrl-C there signals this process.
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
pipeline = ScriptedPipeline(answer=answer, context_length=100)
asyncio.run(chat(pipeline, model="stub", system="Be brief.", settings=Ask()))
print(f"left, {pipeline.running} running, {pipeline.closed_early} stopped")
