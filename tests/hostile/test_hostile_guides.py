"""Guides that would stop a llama.cpp server for everybody, while another client streams."""

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from support.command import Server, children, is_alive, serving
from support.guides import GRAMMARS, HOSTILE_GRAMMARS, HOSTILE_SCHEMAS, SCHEMAS
from support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

#: Seconds in which a guide is judged. The goal is a tenth of it.
_JUDGED = 10
_STREAM_TOKENS = 600

#: The bound of the whole body applies first.
_TOO_MANY_VALUES = "schema: a million values"
#: The server recognizes it as Lark, and follows it.
_LARK = "grammar: another language"
HOSTILE = {
    **{f"grammar: {name}": _grammar for name, (_grammar, _) in HOSTILE_GRAMMARS.items()},
    **{f"schema: {name}": schema for name, (schema, _) in HOSTILE_SCHEMAS.items()},
}


def _format(guide: Any) -> dict[str, Any]:
    if isinstance(guide, str):
        return {"type": "grammar", "grammar": guide}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": guide}}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("out=llama_cpp") as server:
        yield server


def _post(server: Server, **fields: Any) -> Request:
    body = {"messages": [{"role": "user", "content": "Hello"}], **fields}
    headers = {"Content-Type": "application/json"}
    return Request(f"{server.api}/chat/completions", json.dumps(body).encode(), headers)


def _ask(server: Server, guide: Any, **more: Any) -> tuple[int, Any]:
    """Returns the status and the body."""
    asked = _post(server, response_format=_format(guide), max_tokens=8, **more)
    try:
        with urlopen(asked, timeout=_JUDGED) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def _stream(server: Server, begun: Event) -> int:
    """Returns the number of tokens of a long answer. Sets `begun` at its first one."""
    asked = _post(
        server,
        max_tokens=_STREAM_TOKENS,
        ignore_eos=True,
        stream=True,
        stream_options={"include_usage": True},
    )
    tokens = 0
    with urlopen(asked, timeout=30) as answer:
        for line in answer:
            begun.set()
            if line.startswith(b"data: {"):
                usage = json.loads(line[6:]).get("usage")
                tokens = usage["completion_tokens"] if usage else tokens
    return tokens


def _is_healthy(server: Server) -> bool:
    try:
        with urlopen(f"{server.url}/health", timeout=10) as answer:
            return bool(answer.status == 200)
    except HTTPError as error:
        error.close()
        return False


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != _LARK])
def test_a_hostile_guide_is_refused_and_stops_nobody(server: Server, name: str) -> None:
    hosts = server.host_pids()
    begun = Event()
    with ThreadPoolExecutor() as threads:
        stream = threads.submit(_stream, server, begun)
        assert begun.wait(20)
        status, answer = _ask(server, HOSTILE[name])
        assert status == 400
        error = answer["error"]
        assert error["param"] == "response_format"
        if name != _TOO_MANY_VALUES:
            assert "cannot be followed" in error["message"]
        assert stream.result(60) == _STREAM_TOKENS
    assert server.host_pids() == hosts


def test_the_choices_of_one_request_are_refused_together(server: Server) -> None:
    status, answer = _ask(server, 'root ::= "b"{5,2}', n=8)
    assert status == 400
    assert answer["error"]["param"] == "response_format"


#: The demo model has none of the tokens that "tokens" names.
@pytest.mark.parametrize("name", sorted({*GRAMMARS, *SCHEMAS} - {"tokens"}))
def test_usual_guides_are_followed_by_all_choices(server: Server, name: str) -> None:
    status, answer = _ask(server, GRAMMARS.get(name) or SCHEMAS[name], n=8)
    assert status == 200, answer
    assert len(answer["choices"]) == 8


def test_a_guide_is_judged_again_after_its_process_was_killed(server: Server) -> None:
    assert _ask(server, {"const": 1})[0] == 200
    [host] = server.host_pids()
    judges = children(host)
    assert judges
    for judge in judges:
        os.kill(judge, signal.SIGKILL)
    assert _ask(server, {"const": 2})[0] == 200
    assert server.host_pids() == [host]


def test_the_processes_end_with_the_engine() -> None:
    with serving("out=llama_cpp") as server:
        assert _ask(server, {"const": 1})[0] == 200
        [host] = server.host_pids()
        judges = children(host)
        assert judges
        os.kill(host, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, judges)))
        wait_until(lambda: _is_healthy(server), 20)
        assert _ask(server, {"const": 1})[0] == 200
        judges = children(server.host_pids()[0])
        assert judges
        server.end()
    assert not any(map(is_alive, judges))
