"""An engine for `out=FILE.py` that plays the model's part exactly, in the format of Qwen3.

The last message decides. A question has its words in `ANSWERS`. The results of tools are repeated,
so that a client's test sees that they arrived.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

from dynemo.engine_api import EngineRequest


def _call(tool: str, **arguments: Any) -> str:
    body = json.dumps({"name": tool, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


ANSWERS = {
    "weather in Oslo": _call("get_weather", city="Oslo"),
    "weather in two cities": "I will look.\n"
    + _call("get_weather", city="Zürich")
    + "\n"
    + _call("get_weather", city="Oslo"),
    "think": "<think>\nTwo and two.\n</think>\n\nFour.",
    "think, then call": "<think>\nI need the weather.\n</think>\n\n"
    + _call("get_weather", city="Oslo"),
    "city as a tool": _call("City", name="Oslo", people=700000),
    "partial city as a tool": _call("PartialCity", name="Oslo", people=700000),
    "final result": _call("final_result", name="Oslo", people=700000),
    "city as JSON": '{"name":"Oslo","people":700000}',
    "Read a.txt": _call("read", filePath="a.txt"),  # for opencode
    "Read the file a.txt": _call("Read", filepath="a.txt"),  # for Continue
    "List the files": _call("read_files", files=[{"path": "a.txt"}]),  # for Cline
    "Greet in hello.py": 'hello.py\n```\nprint("hello")\n```',  # for aider
    "broken call": '<tool_call>\n{"name": "get_weather", "arguments": {"city": ',
}


async def generate(request: EngineRequest) -> AsyncIterator[str]:
    for character in _answer(request.messages):
        yield character


def _answer(messages: list[dict[str, Any]]) -> str:
    results = []
    for message in reversed(messages):
        if message["role"] != "tool":
            break
        results.append(str(message["content"]))
    if results:
        return "It says: " + "; ".join(reversed(results))
    text = messages[-1]["content"]
    question = text.partition("\n")[0].strip('"')  # some clients quote it, and add to it
    return ANSWERS.get(question, f"You said: {text}")
