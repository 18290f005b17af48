"""Chat templates that would run for hours, take all memory, or cannot be compiled."""

import json
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dynemo.errors import ModelError, RequestError
from dynemo.messages.ask import text_turn
from dynemo.models.find import demo_checkout
from dynemo.prompt.errors import RenderTooLong
from dynemo.prompt.render import RenderInput, render_as_given, render_prompt
from dynemo.prompt.template import ChatTemplate
from dynemo.serving.rendering import render_apart
from support.command import Server, children, run, serving
from support.fidelity_data import conversations, goldens, template
from support.waiting import wait_until

CHAT = RenderInput([text_turn("user", "Hello")])
_GROW = "{% set ns = namespace(v=START) %}{% for i in range(60) %}STEP{% endfor %}"


def grow(start: str, step: str) -> str:
    """Returns a template that replaces a value 60 times."""
    return _GROW.replace("START", start).replace("STEP", f"{{% set ns.v = {step} %}}")


#: Each of these needs more than its budget, so this process stops it early.
ENDLESS = {
    "loops": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "filtered loops": "{% for i in range(9999) %}{% for j in range(9999) if 0 %}{% endfor %}"
    "{% endfor %}",
    "macros": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
    "{{ m(60) }}",
    "recursive loop": "{% for i in [1, 2] recursive %}{% if loop.depth < 60 %}{{ loop([1, 2]) }}"
    "{% endif %}{% endfor %}",
    "times": "{{ 'a' * 10**10 }}",
    "times list": "{{ ([1] * 10**9) | length }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "power constant": "{% set x = 10 ** 100000000 %}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "percent star": "{{ '%*d' % (1000000000, 1) }}",
    "format filter": "{{ '%999999999d' | format(1) }}",
    "format": "{{ '{:>1000000000}'.format(1) }}",
    "format map": "{{ '{a:>1000000000}'.format_map({'a': 1}) }}",
    "lipsum": "{{ lipsum(n=100000) }}",
    "center": "{{ 'a' | center(10**9) }}",
    "center method": "{{ 'a'.center(10**9) }}",
    "zfill": "{{ '1'.zfill(10**9) }}",
    "expandtabs": "{{ '\\t'.expandtabs(10**9) }}",
    "to_bytes": "{{ (1).to_bytes(10**9, 'big') }}",
    "indent": "{{ ('a\n' * 1000) | indent(10**7) }}",
    "tojson indent": "{{ [[[1]]] | tojson(indent=10**9) }}",
    "round": "{{ 1 | round(-10**9) }}",
    "batch": "{{ [1] | batch(10**9, 'x') | list }}",
    "slice": "{{ [1] | slice(10**9) | list }}",
    "join": "{{ range(100000) | join('a' * 60000) }}",
    "selects": "{% for i in range(99999) %}{{ range(99999) | select('odd') | list }}{% endfor %}",
    "sort": "{% for i in range(99999) %}{% set x = range(99999) | sort %}{% endfor %}",
    "text": grow("'a'", "ns.v + ns.v"),
    "joined text": grow("'a'", "ns.v ~ ns.v"),
    "list": grow("[1]", "ns.v + ns.v"),
    "replace": grow("'aa'", "ns.v | replace('a', 'aa')"),
    "replace method": grow("'aa'", "ns.v.replace('a', 'aa')"),
    "number": grow("3", "ns.v * ns.v"),
    "nested list": grow("[1]", "[ns.v, ns.v]") + "{{ ns.v }}",
    "nested json": grow("[1]", "[ns.v, ns.v]") + "{{ ns.v | tojson }}",
    "nested mapping": grow("{}", "{'a': ns.v, 'b': ns.v}") + "{{ ns.v | string | length }}",
    "nested comparison": grow("[1]", "[ns.v, ns.v]") + "{{ ns.v == [ns.v] }}",
    "nested key": grow("(1,)", "(ns.v, ns.v)") + "{{ {ns.v: 1} }}",
    "nested error": grow("[1]", "[ns.v, ns.v]") + "{{ raise_exception(ns.v) }}",
    "set block": "{% set ns = namespace(v='a') %}{% for i in range(60) %}"
    "{% set x %}{{ ns.v }}{{ ns.v }}{% endset %}{% set ns.v = x %}{% endfor %}",
    "cycler": "{% set c = cycler('a' * 60000) %}{% for i in range(99999) %}{{ c.next() }}"
    "{% endfor %}",
    "plain text": "{% for i in range(99999) %}" + "x" * 100_000 + "{% endfor %}",
    "autoescape": "{% autoescape true %}" + grow("'<'", "ns.v ~ ns.v") + "{% endautoescape %}",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_this_process_soon_gives_up(name: str) -> None:
    started = time.thread_time()
    with pytest.raises(RenderTooLong):
        render_prompt(ChatTemplate(ENDLESS[name]), CHAT)
    assert time.thread_time() - started < 1


@pytest.mark.processes
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["loops", "times", "power constant", "nested json", "center"])
def test_a_process_of_its_own_is_stopped(name: str) -> None:
    with pytest.raises(RequestError, match="chat template") as caught:
        render_apart(ChatTemplate(ENDLESS[name]), CHAT)
    assert caught.value.param == "messages"


@pytest.mark.processes
def test_a_long_rendering_is_the_same_in_a_process_of_its_own() -> None:
    """The other process computes it. It is not refused."""
    source = "{% for row in messages[0].content | batch(2, '-') %}{{ row | join }};{% endfor %}"
    made = ChatTemplate(source)
    with pytest.raises(RenderTooLong):
        render_prompt(made, CHAT)
    assert render_apart(made, CHAT).plain == "He;ll;o-;"


@pytest.mark.processes
def test_a_process_of_its_own_renders_as_this_one() -> None:
    for name in sorted(goldens())[::40]:
        golden = next((g for g in goldens()[name] if g["conversation"] == "single_user"), None)
        if golden is None or "rendered" not in golden:
            continue
        conversation = conversations()[golden["conversation"]]
        chat = RenderInput([], tools=conversation["tools"])
        made = ChatTemplate(
            dict(template(name).sources), special_tokens=template(name).special_tokens
        )
        here = render_as_given(made, conversation["messages"], chat)
        assert render_apart(made, chat, conversation["messages"]) == here


@pytest.mark.processes
def test_a_refusal_travels_from_a_process_of_its_own() -> None:
    with pytest.raises(RequestError, match=r"^Only users speak\.$"):
        render_apart(ChatTemplate("{{ raise_exception('Only users speak.') }}"), CHAT)


def test_no_template_of_the_tests_needs_a_process() -> None:
    for name, found in goldens().items():
        for golden in found:
            conversation = conversations()[golden["conversation"]]
            try:
                template(name).render(conversation["messages"], tools=conversation["tools"])
            except RenderTooLong:
                pytest.fail(f"{name} of {golden['conversation']}")
            except RequestError:
                continue


def test_a_long_conversation_needs_no_process() -> None:
    turns = [text_turn(("user", "assistant")[i % 2], "word " * 200) for i in range(400)]
    source = (demo_checkout() / "chat_template.jinja").read_text(encoding="utf-8")
    made = ChatTemplate(source, special_tokens={"bos_token": "<s>"})
    assert len(render_prompt(made, RenderInput(turns)).text) > 400_000


BROKEN = {
    "parentheses": "{{ " + "(" * 25_000 + "1" + ")" * 25_000 + " }}",
    "30 loops": "{% for i in [1] %}" * 30 + "{% endfor %}" * 30,
    "elif": "{% if a %}x" + "{% elif a %}x" * 20_000 + "{% endif %}",
    "few elif": "{% if a %}x" + "{% elif a %}x" * 3_000 + "{% endif %}",
    "break": "{% break %}",
    "continue": "{% continue %}",
    "lists": "{{ " + "[" * 50_000 + "]" * 50_000 + " }}",
    "not": "{{ " + "not " * 60_000 + "1 }}",
    "sum": "{{ " + "1+" * 9_000 + "1 }}",
    "attributes": "{{ a" + ".b" * 9_000 + " }}",
    "filters": "{{ a" + "|e" * 9_000 + " }}",
    "conditions": "{% if a %}" * 9_000 + "{% endif %}" * 9_000,
    "macros": "{% macro a() %}" * 4_000 + "{% endmacro %}" * 4_000,
    "digits": "{{ " + "1" * 100_000 + " }}",
    "many statements": "{% set a=1 %}" * 20_000,
    "long": "x" * 300_000,
    "unclosed": "{{" * 100_000,
    "comment": "{#" * 100_000,
    "raw": "{% raw %}" * 20_000,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_template_that_cannot_be_compiled_is_named(name: str) -> None:
    started = time.thread_time()
    with pytest.raises(ModelError, match='chat template "default"'):
        ChatTemplate(BROKEN[name])
    assert time.thread_time() - started < 5


def checkout(folder: Path, source: str) -> Path:
    """Returns a copy of the demo model's checkout with another chat template."""
    copied = folder / "model"
    shutil.copytree(demo_checkout(), copied)
    (copied / "chat_template.jinja").write_text(source, encoding="utf-8")
    return copied


@pytest.mark.processes
@pytest.mark.parametrize("name", ["30 loops", "elif", "break", "parentheses"])
def test_the_command_refuses_it_with_a_sentence(tmp_path: Path, name: str) -> None:
    done = run(checkout(tmp_path, BROKEN[name]), "out=echo", stdin="Hi")
    assert done.returncode == 2
    assert "chat template" in done.stderr
    assert "fault of dynemo-run" not in done.stderr
    assert "Traceback" not in done.stderr


def post(server: Server) -> tuple[int, Any]:
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    request = urllib.request.Request(
        f"{server.api}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def looping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = checkout(tmp_path_factory.mktemp("looping"), ENDLESS["loops"])
    with serving(folder, "out=echo") as server:
        yield server


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_the_server_answers_others_while_a_template_loops(looping: Server) -> None:
    answers: list[tuple[int, Any]] = []
    threads = [threading.Thread(target=lambda: answers.append(post(looping))) for _ in range(4)]
    for thread in threads:
        thread.start()
    longest = 0.0
    while any(thread.is_alive() for thread in threads):
        started = time.monotonic()
        with urllib.request.urlopen(f"{looping.url}/live", timeout=5) as live:
            assert live.status == 200
        longest = max(longest, time.monotonic() - started)
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert longest < 2
    assert [status for status, _ in answers] == [400] * 4
    for _, body in answers:
        assert "chat template" in body["error"]["message"]
        assert "2 s" in body["error"]["message"]


@pytest.mark.processes
@pytest.mark.timeout(120)
def test_clients_that_leave_free_the_processes_they_wait_for(looping: Server) -> None:
    place = urlsplit(looping.url)
    body = b'{"messages":[{"role":"user","content":"Hello"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    hosts = len(children(looping.process.pid))
    with ExitStack() as stack:
        for _ in range(40):
            client = socket.create_connection((place.hostname, place.port))
            stack.enter_context(client)
            client.sendall(head % len(body) + body)
        wait_until(lambda: len(children(looping.process.pid)) > hosts)
    # 40 renderings of 2 s of CPU, two at once, take 40 s and more.
    answered = time.monotonic()
    assert post(looping)[0] == 400
    assert time.monotonic() - answered < 20


@pytest.mark.processes
@pytest.mark.timeout(60)
def test_a_signal_ends_a_server_whose_template_loops(tmp_path: Path) -> None:
    with serving(checkout(tmp_path, ENDLESS["loops"]), "out=echo") as server:
        hosts = len(children(server.process.pid))
        asking = threading.Thread(target=lambda: post_or_nothing(server))
        asking.start()
        deadline = time.monotonic() + 10
        while len(children(server.process.pid)) == hosts and time.monotonic() < deadline:
            time.sleep(0.01)
        server.process.terminate()
        server.process.wait(30)
        asking.join()


def post_or_nothing(server: Server) -> None:
    try:
        post(server)
    except OSError:
        return


@pytest.mark.processes
def test_render_prints_why(tmp_path: Path) -> None:
    folder = checkout(tmp_path, ENDLESS["times"])
    messages = tmp_path / "messages.json"
    messages.write_text('[{"role": "user", "content": "Hi"}]', encoding="utf-8")
    done = run("render", folder, "--messages", messages)
    assert done.returncode != 0
    assert "1 GB of memory" in done.stderr
    assert "Traceback" not in done.stderr
