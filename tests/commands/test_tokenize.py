"""`tokenize` and `detokenize` read and write lines of JSON."""

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from dynemo.commands.tokenize import detokenize, tokenize
from dynemo.errors import UsageError
from dynemo.models.gguf import read_gguf
from dynemo.tokenizers.base import Tokenizer
from dynemo.tokenizers.gguf.tokenizer import load_tokenizer
from support.gguf_files import unpack_vocabulary, vocabulary_goldens


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = unpack_vocabulary("llama-spm", tmp_path_factory.mktemp("vocabulary"))
    return load_tokenizer(read_gguf(path).metadata)


def _answers(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def _tokenized(tokenizer: Tokenizer, lines: Iterable[bytes]) -> list[dict[str, Any]]:
    out = io.StringIO()
    tokenize(tokenizer, lines, out)
    return _answers(out)


def test_every_golden_there_and_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(vocabulary_goldens("llama-spm"))
    goldens = [json.loads(line) for line in path.read_bytes().splitlines()]
    out = io.StringIO()
    assert tokenize(tokenizer, path, out) == 0
    assert _answers(out) == [{"ids": golden["ids"]} for golden in goldens]
    out = io.StringIO()
    assert detokenize(tokenizer, str(path), out) == 0
    for golden, answer in zip(goldens, _answers(out), strict=True):
        assert len(answer["deltas"]) == len(golden["ids"])
        if "detokenized" in golden:
            assert "".join(answer["deltas"]) == golden["detokenized"]


def test_defaults_are_those_of_llama_cpp(tokenizer: Tokenizer) -> None:
    plain = {"text": "<s>a"}
    spelled = {"text": "<s>a", "add_special": False, "parse_special": True}
    first, second = _tokenized(tokenizer, [json.dumps(line).encode() for line in (plain, spelled)])
    assert first == second == {"ids": [1, 263]}


def test_the_end_shows_held_text(tokenizer: Tokenizer) -> None:
    out = io.StringIO()
    detokenize(tokenizer, [b'{"ids": [263, 243, 162]}'], out)
    assert _answers(out) == [{"deltas": [" a", "", "", "\ufffd"]}]


def test_a_wrong_line_is_answered_and_the_next_one_read(tokenizer: Tokenizer) -> None:
    lines = [
        b"nonsense",
        b"",
        b"[1]",
        b'{"text": 1}',
        b'{"text": "a", "add_special": 1}',
        b'{"text": "\\ud800"}',
        b'{"text": "\xff"}',
        b"[" * 100_000,
        b'{"text": "a"}',
    ]
    answers = _tokenized(tokenizer, lines)
    errors, last = answers[:-1], answers[-1]
    words = [
        "Line 1 is not",
        "Line 3 is not",
        '"text"',
        '"add_special"',
        "U+D800",
        "Line 7",
        "Line 8",
    ]
    assert len(errors) == len(words)
    for error, word in zip(errors, words, strict=True):
        assert word in error["error"]
    assert last == {"ids": [263]}


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"{}", '"ids"'),
        (b'{"ids": [1.5]}', '"ids"'),
        (b'{"ids": [true]}', '"ids"'),
        (b'{"ids": [-1]}', "There is no token -1; the ids are 0 to "),
        (b'{"ids": [32000]}', "There is no token 32000; the ids are 0 to 31999."),
    ],
)
def test_wrong_ids(line: bytes, word: str, tokenizer: Tokenizer) -> None:
    out = io.StringIO()
    assert detokenize(tokenizer, [line], out) == 1
    assert word in _answers(out)[0]["error"]


def test_a_missing_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Cannot read"):
        tokenize(tokenizer, tmp_path / "none.jsonl", io.StringIO())


def test_standard_input(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "a"}\n')))
    out = io.StringIO()
    assert tokenize(tokenizer, "-", out) == 0
    assert _answers(out) == [{"ids": [263]}]
