"""A setting that is added to `Ask` is refused for every engine until the engine names it.

The test adds the setting `made_up`, which no engine knows, to a copy of the package. That takes a
change in three files. Then it sends the setting over each input.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import dynemo

PACKAGE = Path(dynemo.__file__).parent
REFUSAL = "does not support 'made_up'"

#: A file, a line in it, and the line to add after that line.
PATCHES = (
    (
        "messages/ask.py",
        "    temperature: float | None = None\n",
        "    made_up: float | None = None\n",
    ),
    ("messages/request.py", "    min_p: float = 0.0\n", "    made_up: float = 0.0\n"),
    (
        "api/openai/types.py",
        "    seed: Int64 | None = None\n",
        "    made_up: float | None = None\n",
    ),
)

#: Checks the settings that each adapter declares, without starting the engine.
EVERY_ENGINE = """
import sys
from importlib import import_module
from pathlib import Path
import dynemo.engines
from dynemo.errors import UnsupportedField
from dynemo.messages.ask import Ask
from dynemo.messages.records import Capabilities, Instance
from dynemo.prompt.needs import capable_instances, needs_of_ask

[folder] = dynemo.engines.__path__
names = sorted(path.parent.name for path in Path(folder).glob("*/adapter.py"))
for name in names:
    module = import_module(f"dynemo.engines.{name}.adapter")
    can = Capabilities(sampling=list(module.SETTINGS))
    instance = Instance(id="i", engine=name, version="", device="", context_length=9, slots=1,
                        capabilities=can)
    capable_instances(needs_of_ask(Ask(temperature=0.5)), [instance], "m")
    try:
        capable_instances(needs_of_ask(Ask(made_up=0.5)), [instance], "m")
    except UnsupportedField as error:
        assert error.param == "made_up"
        print(error)
    else:
        sys.exit(f"{name} lets it through")
print(len(names))
"""

#: A chat with a loaded engine, in which the user types `/set made_up 0.5`.
CHAT = """
import asyncio
from types import SimpleNamespace
from dynemo.errors import UnsupportedField
from dynemo.messages.ask import Ask
from dynemo.messages.records import Capabilities, Instance
from dynemo.engines.echo.adapter import SETTINGS
from dynemo.serving.pipeline import Pipeline
from dynemo.serving.served import ServedModel
from dynemo.terminal.chat.commands import ChatSession, run_command

instance = Instance(id="i", engine="echo", version="", device="", context_length=9, slots=1,
                    capabilities=Capabilities(sampling=list(SETTINGS)))
backend = SimpleNamespace(instance=instance, instance_classes=[instance])
pipeline = Pipeline({"m": ServedModel("m", 0, None, backend)}, defaults=Ask())
chat = ChatSession(pipeline, "m", Ask(), Ask())
run_command(chat, "set", "temperature 0.5")
try:
    run_command(chat, "set", "made_up 0.5")
except UnsupportedField as error:
    print(error)
assert chat.settings == Ask(temperature=0.5)
"""

HTTP = """
import json, sys, urllib.error, urllib.request
body = {"messages": [{"role": "user", "content": "x"}], "made_up": 0.5}
request = urllib.request.Request(sys.argv[1] + "/v1/chat/completions", json.dumps(body).encode())
try:
    urllib.request.urlopen(request)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Returns the environment variables with which `dynemo` is the copy."""
    folder = tmp_path_factory.mktemp("patched")
    shutil.copytree(PACKAGE, folder / "dynemo", ignore=shutil.ignore_patterns("__pycache__"))
    for name, line, added in PATCHES:
        path = folder / "dynemo" / name
        text = path.read_text()
        assert text.count(line) == 1
        path.write_text(text.replace(line, line + added))
    return os.environ | {"PYTHONPATH": str(folder)}


def python(code: str, environment: Mapping[str, str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def command(
    environment: Mapping[str, str], *words: str | Path, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "dynemo", *map(str, words)],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


def test_every_engine_refuses_it(patched: Mapping[str, str]) -> None:
    *refusals, count = python(EVERY_ENGINE, patched).splitlines()
    assert len(refusals) == int(count) >= 7
    assert all(REFUSAL in refusal for refusal in refusals)


def test_in_the_chat(patched: Mapping[str, str]) -> None:
    assert REFUSAL in python(CHAT, patched)


def test_in_a_batch(patched: Mapping[str, str], tmp_path: Path) -> None:
    lines, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines.write_text('{"text": "a", "made_up": 0.5}\n{"text": "b"}\n')
    command(patched, f"in=batch:{lines}", "out=echo", "--output", out)
    refused, answered = map(json.loads, out.read_text().splitlines())
    assert REFUSAL in refused["error"]
    assert answered["response"]


def test_in_a_request_template(patched: Mapping[str, str], tmp_path: Path) -> None:
    template = tmp_path / "template.json"
    template.write_text('{"made_up": 0.5}')
    done = command(patched, "in=stdin", "out=echo", "--request-template", template, stdin="x")
    assert done.returncode == 2
    assert REFUSAL in done.stderr.splitlines()[-1]
    assert done.stdout == ""


def test_over_http(patched: Mapping[str, str]) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "dynemo", "in=http", "out=echo", "--http-port", "0"],
        env=patched,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    try:
        url = next(line for line in server.stderr if "http://" in line).split()[-1]
        status, body = python(HTTP, patched, url).split(maxsplit=1)
        error = json.loads(body)["error"]
        assert status == "400"
        assert (error["param"], error["code"]) == ("made_up", "unsupported_parameter")
        assert REFUSAL in error["message"]
    finally:
        server.terminate()
        server.wait(10)
        server.stderr.close()
