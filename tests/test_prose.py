"""`tools/prose.py` finds each riddle, and lets plain sentences pass."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent / "tools" / "prose.py"


@pytest.fixture(scope="module")
def prose() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prose", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["prose"] = module
    spec.loader.exec_module(module)
    return module


def findings(prose: ModuleType, path: Path, text: str) -> list[tuple[int, str]]:
    path.write_text(text, encoding="utf-8")
    return [(finding.line, finding.phrase) for finding in prose.check(path)]


RIDDLES = {
    "Fails if the file is no checkout.": "is no",
    "It returns the model, or fails if it is none.": "is none",
    "Ends the work of who reads, wherever it waits.": "of who reads",
    "It sends what comes next.": "what comes",
    "The engine is told the path.": "is told",
    "The tokenizer sets it, or has not.": "has not",
    "It stops there where the text ends.": "there where",
    "A file is kept where there is one.": "where there is one",
    "An instance replaces one that is late.": "one that",
    "None that is late gets requests.": "None that",
    "Whoever connects gets the key.": "Whoever",
    "The stream goes on with the rest.": "goes on",
    "It loads the file anew.": "anew",
}

PLAIN = (
    "There is no checkout. It is no longer there. If there is none, it fails.",
    "It returns None. `who reads` is code, and `is no` as well.",
    "A user who reads it has not asked for it yet.",
    "The one that an engine opens goes on to the next step.",
)


@pytest.mark.parametrize("riddle", RIDDLES)
def test_riddles_are_found(prose: ModuleType, tmp_path: Path, riddle: str) -> None:
    phrase = RIDDLES[riddle]
    assert findings(prose, tmp_path / "a.md", f"# Title\n\n{riddle}\n") == [(3, phrase)]
    assert findings(prose, tmp_path / "a.py", f"x = 1  # {riddle}\n") == [(1, phrase)]
    assert findings(prose, tmp_path / "a.py", f'"""Does it.\n\n{riddle}\n"""\n') == [(3, phrase)]
    assert findings(prose, tmp_path / "a.py", f"raise E(f{riddle!r})\n") == [(1, phrase)]
    assert findings(prose, tmp_path / "a.py", f"log.info({riddle!r})\n") == [(1, phrase)]
    assert findings(prose, tmp_path / "a.py", f"p.add(x, help={riddle!r})\n") == [(1, phrase)]


@pytest.mark.parametrize("text", PLAIN)
def test_plain_sentences_pass(prose: ModuleType, tmp_path: Path, text: str) -> None:
    assert not findings(prose, tmp_path / "a.md", text)
    assert not findings(prose, tmp_path / "a.py", f'"""{text}"""\n# {text}\n')


def test_a_phrase_is_found_across_lines(prose: ModuleType, tmp_path: Path) -> None:
    text = "def f():\n    # It raises if the file is\n    # no checkout at all.\n    pass\n"
    assert findings(prose, tmp_path / "a.py", text) == [(2, "is no")]


def test_code_is_skipped(prose: ModuleType, tmp_path: Path) -> None:
    text = "Run it:\n\n    echo is no code\n\n```sh\necho whoever\n```\n\nThen `who reads` it.\n"
    assert not findings(prose, tmp_path / "a.md", text)
    assert not findings(prose, tmp_path / "a.py", 'x = ["is no message"]\n')


def test_long_sentences_are_found(prose: ModuleType, tmp_path: Path) -> None:
    words = " ".join(["word"] * prose.MAX_WORDS)
    assert not findings(prose, tmp_path / "a.md", f"{words}. {words}; {words}: {words}.")
    assert findings(prose, tmp_path / "a.md", f"Short. {words} more.") == [
        (1, "word word word word ...")
    ]


def test_a_docstring_needs_a_verb(prose: ModuleType, tmp_path: Path) -> None:
    assert findings(prose, tmp_path / "a.py", '"""What the file holds."""\n')
    assert not findings(prose, tmp_path / "a.py", '"""Reads what the file holds."""\n')


def test_the_exit_code(prose: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text("It works.\n")
    assert prose.main([str(tmp_path)]) == 0
    (tmp_path / "bad.py").write_text('"""It is no file."""\n')
    assert prose.main([str(tmp_path)]) == 1


def test_frozen_files_are_skipped(prose: ModuleType, tmp_path: Path) -> None:
    for frozen in prose.FROZEN:
        assert (SCRIPT.parent.parent / frozen).is_file()
        copy = tmp_path / frozen
        copy.parent.mkdir(parents=True)
        copy.write_text('"""It is no file."""\n')
        assert prose.main([str(tmp_path)]) == prose.main([str(copy)]) == 0
        copy.with_name("another.py").write_text('"""It is no file."""\n')
        assert prose.main([str(tmp_path)]) == 1
