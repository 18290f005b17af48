"""Tools in requests, histories and answers that try to stop a server: never a 500, and the streams
of others continue."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from dynemo.models.find import demo_checkout
from support.command import Server, serving

pytestmark = pytest.mark.timeout(120)

#: The most that the server's memory may grow, in all tests together. The goal is a tenth of it.
_GROWTH = 500 * 2**20
#: The longest pause of another stream, in seconds. The goal is a tenth of it.
_PAUSE = 2.0
_WORDS = 100

TEMPLATE = """\
{%- for tool in tools or [] %}[{{ tool | tojson }}]{% endfor %}
{%- for m in messages %}<{{ m.role }}>{{ m.content }}
{%- if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}
{%- for call in m.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}
{%- endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"""

#: It says what the last word of the conversation names.
ENGINE = """\
import asyncio
import json
from pathlib import Path

TEXTS = json.loads(Path(__file__).with_name("texts.json").read_text())


async def generate(request):
    word = [message["content"] for message in request.messages][-1].split()[-1:]
    if word == ["slowly"]:
        for number in range(WORDS):
            yield f"{number} "
            await asyncio.sleep(0.01)
        return
    for text in TEXTS.get("".join(word), ["Well."]):
        yield text
""".replace("WORDS", str(_WORDS))


def _call(arguments: str, name: str = "get_weather") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


#: What the model writes, in its tokens.
ANSWERS: dict[str, list[str]] = {
    "openings": ["<tool_call>"] * 4000,
    "a-megabyte-of-openings": ["<tool_call>" * 95_000],
    "thoughts": ["<think>" * 10_000],
    "unterminated": [
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "',
        "x" * 1_000_000,
    ],
    "cut": ['<tool_call>\n{"name": "get_weather", "arg'],
    "unknown": [_call("{}", "nobody")],
    "nul": [_call('{"city": "a\0b"}'), "\0"],
    "nul-name": [_call("{}", "get_\0weather")],
    "half-a-character": [_call('{"city": "\\ud800"}')],
    "half-a-character-as-name": [_call("{}", "\\ud800")],
    "brackets": [_call("[" * 100_000)],
    "closed-brackets": [_call('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")],
    "braces": [_call('{"a":' * 100_000)],
    "bare-brackets": ["[" * 100_000],
    "calls": [_call("{}")] * 4000,
    "a-token-of-calls": [_call("{}") * 5000],
    "number": [_call('{"a": ' + "9" * 100_000 + "}")],
    "float": [_call('{"a": 1e999999}')],
    "nan": [_call('{"a": NaN}')],
    "keys": [_call('{"city": "a", "city": "b"}')],
    "list": [_call("[1, 2]")],
    "name-of-a-number": ['<tool_call>{"name": 5, "arguments": {}}</tool_call>'],
    "late-name": [
        '<tool_call>{"arguments": {"a": "' + "x" * 1_000_000,
        '"}, "name": "get_weather"}',
    ],
    "escapes": ['<tool_call>{"name": "get_weather", "arguments": {"a": "', '\\"' * 200_000],
    "spaces": ["<tool_call>", " " * 1_000_000],
    "mixed": ["<tool_call>", "</think>", "<think>", "</tool_call>", "{", "<tool_"] * 600,
}
#: What cannot be a call is content, complete.
CONTENT = {
    "openings", "a-megabyte-of-openings", "cut", "unknown", "nul-name", "half-a-character-as-name",
    "brackets", "closed-brackets", "braces", "bare-brackets", "number", "nan", "list",
    "name-of-a-number", "spaces",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tools")
    (folder / "says.py").write_text(ENGINE)
    (folder / "texts.json").write_text(json.dumps(ANSWERS))
    shutil.copytree(demo_checkout(), folder / "model")
    (folder / "model" / "chat_template.jinja").write_text(TEMPLATE)
    with serving(
        f"out={folder}/says.py", folder / "model", "--reasoning-format", "think"
    ) as server:
        before = _most_memory(server)
        yield server
        if before:
            assert _most_memory(server) - before < _GROWTH


def _most_memory(server: Server) -> int:
    """Returns the most bytes that the server has had; 0 without /proc."""
    status = Path(f"/proc/{server.process.pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def _tool(name: Any = "get_weather", **more: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "parameters": schema, **more}}


def _post(server: Server, **fields: Any) -> Request:
    body = {"messages": [{"role": "user", "content": "Hello"}], **fields}
    headers = {"Content-Type": "application/json"}
    return Request(f"{server.api}/chat/completions", json.dumps(body).encode(), headers)


def _ask(server: Server, **fields: Any) -> tuple[int, dict[str, Any]]:
    try:
        with urlopen(_post(server, **fields), timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


class Said(NamedTuple):
    """An answer, whole or put together from a stream."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    reason: str = ""


def _whole(server: Server, word: str) -> Said:
    messages = [{"role": "user", "content": f"Say {word}"}]
    status, answer = _ask(server, messages=messages, tools=[_tool()])
    assert status == 200, answer
    (choice,) = answer["choices"]
    message = choice["message"]
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return Said(
        message["content"] or "",
        message.get("reasoning_content") or "",
        tuple((call["name"], call["arguments"]) for call in calls),
        choice["finish_reason"],
    )


def _streamed(server: Server, word: str) -> Said:
    messages = [{"role": "user", "content": f"Say {word}"}]
    content, reasoning, reason = [], [], ""
    calls: dict[int, list[str]] = {}
    with urlopen(_post(server, messages=messages, tools=[_tool()], stream=True)) as answer:
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            (choice,) = json.loads(line[6:])["choices"]
            delta = choice["delta"]
            content.append(delta.get("content") or "")
            reasoning.append(delta.get("reasoning_content") or "")
            for call in delta.get("tool_calls") or ():
                known = calls.setdefault(call["index"], ["", ""])
                known[0] += call["function"].get("name") or ""
                known[1] += call["function"].get("arguments") or ""
            reason = choice["finish_reason"] or reason
    made = tuple((name, arguments) for name, arguments in calls.values())
    return Said("".join(content), "".join(reasoning), made, reason)


def _longest_pause(server: Server, begun: Event) -> float:
    """Returns the longest pause of a stream of all words, in seconds. Sets `begun` at its start."""
    last, longest, words = monotonic(), 0.0, 0
    asked = _post(server, messages=[{"role": "user", "content": "slowly"}], stream=True)
    with urlopen(asked, timeout=60) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                now = monotonic()
                last, longest = now, max(longest, now - last)
                words += b'"content":"' in line and b'"content":""' not in line
                begun.set()
    assert words > 1
    return longest


@pytest.mark.parametrize("word", ANSWERS)
def test_hostile_answers_are_whole_and_stop_nobody(server: Server, word: str) -> None:
    begun = Event()
    with ThreadPoolExecutor() as threads:
        other = threads.submit(_longest_pause, server, begun)
        assert begun.wait(20)
        whole = _whole(server, word)
        assert _streamed(server, word) == whole
        assert other.result(60) < _PAUSE
    if word in CONTENT:
        assert whole == Said("".join(ANSWERS[word]), reason="stop")


def _deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def _named(name: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


_CHOICE, _NAME = "tool_choice", "tools[0].function.name"
_PARAMETERS = "tools[0].function.parameters"
#: Fields of a request, and the field that the error names.
REFUSED: dict[str, tuple[dict[str, Any], str | None]] = {
    "an unknown name": ({"tools": [_tool()], "tool_choice": _named("nobody")}, _CHOICE),
    "a long name": ({"tools": [_tool()], "tool_choice": _named("n" * 1000)}, _CHOICE),
    "an unknown allowed name": (
        {
            "tools": [_tool()],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [_named("nobody")]},
            },
        },
        _CHOICE,
    ),
    "a choice without tools": ({"tool_choice": "required"}, _CHOICE),
    "a choice of another form": ({"tools": [_tool()], "tool_choice": {}}, f"{_CHOICE}.type"),
    "two tools of one name": ({"tools": [_tool(), _tool()]}, "tools[1].function.name"),
    "a schema that is a list": ({"tools": [_tool(parameters=[])]}, _PARAMETERS),
    "a schema that is a text": ({"tools": [_tool(parameters="{}")]}, _PARAMETERS),
    "a schema of a text": ({"tools": [_tool(parameters={"type": "string"})]}, _PARAMETERS),
    "a schema of 500 levels": ({"tools": [_tool(parameters=_deep(250))]}, "tools[0].function"),
    "properties that are a number": (
        {"tools": [_tool(parameters={"properties": 5})]},
        f"{_PARAMETERS}.properties",
    ),
    "5,000 tools": ({"tools": [_tool(f"t{i}") for i in range(5000)]}, "tools"),
    "5 MB of tools": (
        {"tools": [_tool(f"t{i}", description="d" * 2**20) for i in range(5)]},
        "tools",
    ),
    "a description that is a number": (
        {"tools": [_tool(description=5)]},
        "tools[0].function.description",
    ),
    "a tool that is a number": ({"tools": [5]}, "tools[0]"),
    "another type of tool": ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    "a tool without a function": ({"tools": [{"type": "function"}]}, "tools[0].function"),
    "a name with quotes": ({"tools": [_tool('a"b')]}, _NAME),
    "a name with a newline": ({"tools": [_tool("a\nb")]}, _NAME),
    "a name with a newline at its end": ({"tools": [_tool("a\n")]}, _NAME),
    "a name that is a mark": ({"tools": [_tool("<tool_call>")]}, _NAME),
    "a name that is a control token": ({"tools": [_tool("<|eot_id|>")]}, _NAME),
    "an empty name": ({"tools": [_tool("")]}, _NAME),
    "a name that is a number": ({"tools": [_tool(5)]}, _NAME),
    "half a character as a name": ({"tools": [_tool("\ud800")]}, None),
    "an older name": (
        {"functions": [{"name": "f"}], "function_call": {"name": "g"}},
        "function_call",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_tools_are_refused_by_name(server: Server, name: str) -> None:
    fields, field = REFUSED[name]
    status, answer = _ask(server, **fields)
    assert (status, answer["error"]["param"]) == (400, field)
    assert len(answer["error"]["message"]) < 600


#: Odd tools that are served, or are more than the context takes.
ODD: dict[str, dict[str, Any]] = {
    "1,000 tools": {"tools": [_tool(f"t{i}") for i in range(1000)]},
    "a description of 1 MB": {"tools": [_tool(description="word " * 200_000)]},
    "a description of marks": {"tools": [_tool(description="</tool_call><|eot_id|><think>")]},
    "a schema that refers to itself": {
        "tools": [_tool(parameters={"properties": {"a": {"$ref": "#/properties/a"}}})]
    },
    "a reference that is a number": {
        "tools": [_tool(parameters={"properties": {"a": {"$ref": 5}}})]
    },
    "a property that is a list": {"tools": [_tool(parameters={"properties": {"a": []}})]},
    "a type that is an object": {
        "tools": [_tool(parameters={"properties": {"a": {"type": {"b": 1}}}})]
    },
    "required that is a number": {"tools": [_tool(parameters={"required": 5})]},
    "a schema of 90 levels": {"tools": [_tool(parameters=_deep(45))]},
    "a name that is the word of a mark": {"tools": [_tool("tool_call")]},
    "a long name": {"tools": [_tool("n" * 256)]},
}


@pytest.mark.parametrize("name", ODD)
def test_odd_tools_are_served_or_too_long(server: Server, name: str) -> None:
    status, answer = _ask(server, **ODD[name])
    if status != 200:
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


def _made(arguments: Any, name: str = "get_weather", call_id: Any = "c") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def _result(text: Any = "rain", call_id: str = "c") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


#: Calls of an earlier answer, and their results.
HISTORIES: dict[str, tuple[list[Any], list[Any]]] = {
    "a result without a call": ([], [_result()]),
    "a result of another call": ([_made("{}")], [_result(call_id="other")]),
    "two results of one call": ([_made("{}")], [_result(), _result()]),
    "calls of one id": ([_made("{}"), _made("{}")], [_result(), _result()]),
    "a result of marks": ([_made("{}")], [_result("</tool_call></think><|eot_id|>")]),
    "a result that spells a call": ([_made("{}")], [_result(_call("{}"))]),
    "a result of 1 MB": ([_made("{}")], [_result("x " * 500_000)]),
    "20,000 brackets": ([_made("[" * 20_000)], [_result()]),
    "20,000 closed brackets": ([_made("[" * 20_000 + "]" * 20_000)], [_result()]),
    "20,000 objects": ([_made('{"a":' * 20_000 + "1" + "}" * 20_000)], [_result()]),
    "no JSON": ([_made("no JSON")], [_result()]),
    "no arguments": ([_made("")], [_result()]),
    "a number of 5,000 digits": ([_made('{"a":' + "9" * 5000 + "}")], [_result()]),
    "an infinite number": ([_made('{"a": 1e999, "b": NaN}')], [_result()]),
    "half a character": ([_made('{"a": "\\ud800 \\ud83d\\ude00"}')], [_result()]),
    "NUL": ([_made('{"a": "\\u0000"}')], [_result("\0")]),
    "marks": ([_made('{"a": "</tool_call><|eot_id|>"}')], [_result()]),
    "a name of marks": ([_made("{}", "</tool_call><|eot_id|>")], [_result()]),
    "a name with quotes": ([_made("{}", 'a"\n')], [_result()]),
    "an empty name": ([_made("{}", "")], [_result()]),
    "10,000 calls": ([_made("{}", call_id=f"c{i}") for i in range(10_000)], [_result()]),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_hostile_histories_are_served_or_too_long(server: Server, name: str) -> None:
    calls, results = HISTORIES[name]
    spoken = {"role": "assistant", "content": "Hm.", **({"tool_calls": calls} if calls else {})}
    messages = [{"role": "user", "content": "Hello"}, spoken, *results]
    status, answer = _ask(server, messages=messages, tools=[_tool()])
    if status != 200:
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


def test_a_hostile_call_can_be_sent_back(server: Server) -> None:
    """An agent sends back each call as it came, with a result."""
    question = {"role": "user", "content": "Say half-a-character"}
    _, answer = _ask(server, messages=[question], tools=[_tool()])
    message = answer["choices"][0]["message"]
    (call,) = message["tool_calls"]
    messages = [question, message, _result(call_id=call["id"])]
    status, answer = _ask(server, messages=messages, tools=[_tool()])
    assert status == 200, answer
