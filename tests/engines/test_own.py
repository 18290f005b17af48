"""The user's own engines: the two of the README, and invalid files."""

import json
import re
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest

from dynemo.messages.spec import EngineSpec
from support.command import run, serving
from support.engine_contract import EngineContract

README = Path(__file__).parent.parent.parent / "README.md"

SLOW_IDS = """
import asyncio
from typing import AsyncIterator
async def generate(request) -> AsyncIterator[list[int]]:
    for token_id in request.token_ids * 5:
        yield [token_id]
        await asyncio.sleep(0.001)
"""
SLOW_TEXT = """
import asyncio
async def generate(request):
    for word in (request.prompt or "word " * 3000).split():
        yield word
        await asyncio.sleep(0.001)
"""


def example(folder: Path, name: str) -> Path:
    """Returns the file with this name from the README."""
    match = re.search(rf"```python\n(# {name}\b.*?)```", README.read_text(), re.DOTALL)
    assert match is not None
    file = folder / name
    file.write_text(match[1])
    return file


class TestOwnIds(EngineContract):
    @pytest.fixture
    def spec(self, tmp_path: Path) -> EngineSpec:
        file = tmp_path / "slow.py"
        file.write_text(SLOW_IDS)
        return EngineSpec(engine="own", argument=str(file), model="", workdir="")

    @pytest.fixture
    def prompt(self) -> list[int]:
        return list(range(100, 130))


class TestOwnText(EngineContract):
    @pytest.fixture
    def spec(self, tmp_path: Path) -> EngineSpec:
        file = tmp_path / "slow.py"
        file.write_text(SLOW_TEXT)
        return EngineSpec(engine="own", argument=str(file), model="", workdir="")

    @pytest.fixture
    def prompt(self) -> list[int]:
        return list(range(100, 130))


@pytest.mark.parametrize(
    ("name", "said"),
    [("shout.py", "GOOD MORNING"), ("again.py", "user\n\ngood morning")],
)
def test_the_readme_s_examples_answer(tmp_path: Path, name: str, said: str) -> None:
    done = run(f"out={example(tmp_path, name)}", stdin="good morning")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert said in done.stdout


def test_a_file_may_have_the_name_of_a_module(tmp_path: Path) -> None:
    file = tmp_path / "json.py"
    file.write_text("import json\nasync def generate(request):\n    yield json.dumps(['it'])\n")
    assert run(f"out={file}", stdin="hi").stdout == '["it"]\n'


def test_the_model_is_loaded_first_and_can_be_awaited(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import asyncio\n"
        "from pathlib import Path\n"
        "async def load(model):\n"
        "    global name\n"
        "    await asyncio.sleep(0.01)\n"
        "    name = Path(model).name\n"
        "async def generate(request):\n"
        "    yield name\n"
    )
    done = run(f"out={file}", stdin="hi")
    assert done.stdout == "demo.gguf\n"
    assert "model mine" in done.stderr


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("def generate(request): return 1", "has no `async def generate(request)`"),
        (
            "API = 2\nasync def generate(request): yield 'x'",
            '"wrong.py" needs version 2 of the engine API, but this dynemo-run has version 1.',
        ),
        ("GIVES = 'bytes'\nasync def generate(request): yield 1", 'GIVES in "wrong.py"'),
        ("SAMPLING = ['heat']\nasync def generate(request): yield ''", "names 'heat'"),
        (
            "SAMPLING = 'seed'\nasync def generate(request): yield ''",
            "must be a list of names, not 'seed'",
        ),
        ("SAMPLING = 5\nasync def generate(request): yield ''", "must be a list of names, not 5"),
        ("async def generate(): yield ''", '`generate` in "wrong.py" must take one argument'),
        ("import sys; sys.exit(3)", '"wrong.py" failed: SystemExit: 3'),
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("async def generate(request):", "IndentationError"),
    ],
)
def test_a_file_that_is_wrong_ends_it(tmp_path: Path, source: str, sentence: str) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(source)
    done = run(f"out={file}", stdin="hi")
    assert done.returncode == 2
    assert sentence in done.stderr.splitlines()[-1]
    assert "dynemo/engines" not in done.stderr  # a traceback, if any, starts in the file


def test_an_exception_fails_one_request_and_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "fails.py"
    file.write_text(
        "import sys\n"
        "SAMPLING = []\n"
        "def check(text):\n"
        "    assert text != 'bad', 'not that one'\n"
        "async def generate(request):\n"
        "    text = request.messages[-1]['content']\n"
        "    check(text)\n"
        "    if text == 'leave': sys.exit(3)\n"
        "    yield {'number': 7, 'half': '\\ud800'}.get(text, text)\n"
    )

    def ask(base: str, text: str, **fields: object) -> tuple[int, str]:
        body = {"model": "fails", "messages": [{"role": "user", "content": text}], **fields}
        request = urllib.request.Request(
            f"{base}/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request) as answer:
                content = json.load(answer)["choices"][0]["message"]["content"]
                return answer.status, content
        except HTTPError as error:
            return error.code, json.load(error)["error"]["message"]

    with serving(f"out={file}") as server:
        assert ask(server.api, "good") == (200, "good")
        assert ask(server.api, "bad") == (500, '"fails.py" failed: AssertionError: not that one.')
        status, message = ask(server.api, "number")
        assert (status, "yielded 7" in message) == (500, True)
        status, message = ask(server.api, "good", temperature=0.5)
        assert (status, "'temperature'" in message) == (400, True)
        status, message = ask(server.api, "half")
        assert (status, message.startswith('"fails.py" failed: UnicodeEncodeError')) == (500, True)
        assert ask(server.api, "leave") == (500, '"fails.py" failed: SystemExit: 3.')
        assert ask(server.api, "good") == (200, "good")
    text = "\n".join(server.lines)
    assert f'File "{file}", line 4, in check' in text
    assert "dynemo/engines" not in text


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("99999999", '"ids.py" yielded 99999999. Token ids of this model are below 1536.'),
        ("-3", '"ids.py" yielded -3. Token ids of this model are below 1536.'),
        ("1 << 80", f'"ids.py" yielded {1 << 80}. Token ids of this model are below 1536.'),
        ("True", '"ids.py" yielded True. It gives tokens, so each value must be int'),
    ],
)
def test_the_error_for_an_unknown_id_names_the_file(
    tmp_path: Path, value: str, sentence: str
) -> None:
    file = tmp_path / "ids.py"
    file.write_text(f"async def generate(request) -> int:\n    yield 5\n    yield {value}\n")
    done = run(f"out={file}", stdin="hi")
    assert done.returncode == 1
    assert sentence in done.stderr.splitlines()[-1]
    assert "Restarting it" not in done.stderr


def test_a_message_in_parts_is_one_text(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "good"}, {"type": "text", "text": "morning"}]
    asked, answered = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    asked.write_text(json.dumps({"messages": [{"role": "user", "content": parts}]}))
    for out, said in (
        (example(tmp_path, "shout.py"), "GOOD MORNING "),
        ("echo:text", "good\nmorning"),
    ):
        run(f"in=batch:{asked}", f"out={out}", "--output", answered)
        assert json.loads(answered.read_text())["response"] == said
        answered.unlink()


def test_echo_text_gives_the_last_message_back() -> None:
    text = "one  two\nthree — four"
    done = run("out=echo:text", stdin=text)
    assert done.stdout == text + "\n"


def test_it_gets_the_tools_and_may_call_them(tmp_path: Path) -> None:
    file = tmp_path / "caller.py"
    file.write_text(
        "async def generate(request):\n"
        "    name = request.tools[0]['function']['name']\n"
        "    yield '<think>Hm'\n"
        "    yield '</think>'\n"
        '    yield \'<tool_call>{"name": "%s", \' % name\n'
        '    yield \'"arguments": {"a": 1}}</tool_call>\'\n'
    )
    tool = {"type": "function", "function": {"name": "look_up"}}
    asked, answered = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    message = {"role": "user", "content": "hi"}
    asked.write_text(json.dumps({"messages": [message], "tools": [tool]}))
    formats = ("--tool-format", "hermes", "--reasoning-format", "think")
    run(f"in=batch:{asked}", f"out={file}", *formats, "--output", answered)
    line = json.loads(answered.read_text())
    assert line["finish_reason"] == "tool_calls"
    assert (line["response"], line["reasoning"]) == ("", "Hm")
    (call,) = line["tool_calls"]
    assert call["function"] == {"name": "look_up", "arguments": '{"a": 1}'}
