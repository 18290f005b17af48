"""The gaps between the tokens of eight streams while another client sends guides.

Each guide is new to the server, so that it is judged each time. Most are hostile: the server must
refuse them, and must not stop for them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import count
from statistics import median
from threading import Event, Thread
from time import perf_counter
from typing import Any

from msgspec import json

from bench.client import Client, Task, client
from bench.plan import QUESTION, Plan, chat
from bench.servers import Served, ours
from bench.table import Row

_STREAMS = 8
_PAUSE = 0.1  # seconds between two guides
_GOAL = 50.0  # ms
_WARM_UP = 64  # tokens


def _schema(schema: dict[str, Any], number: int) -> dict[str, Any]:
    named = {**schema, "title": f"schema {number}"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": named}}


def _grammar(text: str, number: int) -> dict[str, Any]:
    return {"type": "grammar", "grammar": f"{text}\n# {number}"}


_MANY_WAYS = "\n".join(["root ::= r0", *(f"r{n} ::= r{n + 1}? r{n + 1}?" for n in range(12))])
_ARGUMENTS = {f"argument_{n}": {"enum": [f"value_{n}_{k}" for k in range(100)]} for n in range(30)}
#: What the other client sends, and the status that it must get.
_GUIDES: dict[str, tuple[Any, Any, int]] = {
    "a schema of 50 kB": (_schema, {"type": "object", "properties": _ARGUMENTS}, 200),
    "a list as a grammar": (_grammar, 'root ::= ("- " [^\\n]+ "\\n")+', 200),
    "a grammar of many ways": (_grammar, _MANY_WAYS + '\nr12 ::= "a"', 400),
    "a grammar without an end": (_grammar, 'root ::= "a"{5,2}', 400),
    "deep parentheses": (_grammar, "root ::= " + "(" * 25_000 + '"a"' + ")" * 25_000, 400),
    "a long pattern": (_schema, {"pattern": "^((x{1000}){1000})$"}, 400),
    "many remainders": (_schema, {"type": "integer", "multipleOf": 99_991}, 400),
}


def neighbour_rows(plan: Plan) -> list[Row]:
    rows: list[Row] = []
    options = [*plan.engine_options, "--parallel", str(_STREAMS + 1)]
    with ours(None, "out=llama_cpp", options=options) as served, client() as load:
        _gap(served.port, load, _WARM_UP)
        quiet = _gap(served.port, load, plan.neighbour_tokens)
        for name, (make, guide, status) in _GUIDES.items():
            with _other_client(served, make, guide, status) as seconds:
                gap = _gap(served.port, load, plan.neighbour_tokens)
            what = f"p99 gap of {_STREAMS} streams beside {name} (peer: alone)"
            rows.append(Row(what, gap, "ms", quiet, goal=_GOAL))
            if seconds:
                rows.append(Row("  time until its answer", median(seconds) * 1000, "ms"))
    return rows


def _gap(port: int, load: Client, tokens: int) -> float:
    """Returns the 99th percentile in ms."""
    body = chat(QUESTION, max_tokens=tokens, ignore_eos=True)
    gaps = sorted(load.run(Task(port, body, _STREAMS, _STREAMS, gaps=True)).gaps)
    return gaps[len(gaps) * 99 // 100] * 1000


@contextmanager
def _other_client(served: Served, make: Any, guide: Any, status: int) -> Iterator[list[float]]:
    """Sends guides in a thread until the end. Gives the list of the seconds of each answer."""
    seconds: list[float] = []
    found: set[int] = set()
    ended = Event()

    def send() -> None:
        for number in count():
            if ended.wait(_PAUSE):
                return
            body = chat(QUESTION, max_tokens=4, response_format=make(guide, number))
            connection = HTTPConnection("127.0.0.1", served.port, timeout=60)
            began = perf_counter()
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.encode(body), headers)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            seconds.append(perf_counter() - began)
            found.add(answer.status)

    thread = Thread(target=send)
    thread.start()
    try:
        yield seconds
    finally:
        ended.set()
        thread.join()
    if found - {status}:
        raise RuntimeError(f"a guide got the status {found}, not {status}")
