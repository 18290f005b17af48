import json
from pathlib import Path

import pytest

from dynemo.errors import EngineError, UsageError
from dynemo.terminal.batch import file as batch_file
from dynemo.terminal.batch.file import (
    count_lines,
    default_output,
    open_output,
    open_source,
    read_lines,
    resume,
    write,
)
from dynemo.terminal.batch.line import failed, key_of


def put(tmp_path: Path, text: bytes) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(text)
    return path


def lines_of(path: Path) -> list[tuple[int, bytes]]:
    with open_source(path) as file:
        return [(line.number, line.data) for line in read_lines(file)]


def answer_some(source: Path, output: Path, most: int) -> int:
    """Writes up to `most` error lines. Returns how many there were before."""
    with open_source(source) as file, open_output(output, source) as out:
        written, lines = resume(out, read_lines(file), b"", output)
        for line, _ in zip(lines, range(most), strict=False):
            key = key_of(line.number, line.data, b"")
            write(out, failed(key, line.data, EngineError("no")))
        return written.ok + written.failed


def numbers(output: Path) -> list[int]:
    return [json.loads(line)["line"] for line in output.read_bytes().splitlines()]


def test_blank_lines_are_none_and_numbers_are_those_of_an_editor(tmp_path: Path) -> None:
    path = put(tmp_path, b"\xef\xbb\xbfa\r\n\n  \nb\n\nc")
    assert lines_of(path) == [(1, b"a"), (4, b"b"), (6, b"c")]
    assert count_lines(path) == (3, 3)


def test_a_line_that_is_too_long_is_cut_and_the_next_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_file, "MAX_LINE", 8)
    path = put(tmp_path, b"a" * 8 + b"\n" + b"b" * 30 + b"\nc\n" + b"d" * 9)
    assert lines_of(path) == [(1, b"a" * 8), (2, b"b" * 9), (3, b"c"), (4, b"d" * 9)]


def test_default_output() -> None:
    assert default_output(Path("x/prompts.jsonl")) == Path("x/prompts.output.jsonl")
    assert default_output(Path("prompts")) == Path("prompts.output.jsonl")


def test_continues_after_the_last_line(tmp_path: Path) -> None:
    source, output = put(tmp_path, b"a\n\nb\nc\nd\n"), tmp_path / "out"
    assert answer_some(source, output, 2) == 0
    assert answer_some(source, output, 1) == 2
    assert answer_some(source, output, 9) == 3
    assert answer_some(source, output, 9) == 4
    assert numbers(output) == [1, 3, 4, 5]


def test_a_torn_line_is_cut_off_wherever_it_was_torn(tmp_path: Path) -> None:
    source, output = put(tmp_path, b"a\nb\nc\n"), tmp_path / "out"
    answer_some(source, output, 9)
    whole = output.read_bytes()
    second = whole.index(b"\n") + 1
    for end in range(second, whole.index(b"\n", second)):
        output.write_bytes(whole[:end])
        assert answer_some(source, output, 9) == 1
        assert output.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [b"precious", b"precious\n", b'{"line": 1}\n', b'{"line":1,"input_hash":"00"}\n', b"\xff\n"],
)
def test_an_output_of_another_input_stays_untouched(tmp_path: Path, content: bytes) -> None:
    source, output = put(tmp_path, b"a\nb\n"), tmp_path / "out"
    output.write_bytes(content)
    with pytest.raises(UsageError, match="name another file with --output"):
        answer_some(source, output, 1)
    assert output.read_bytes() == content


def test_an_output_of_a_longer_or_changed_input_is_refused(tmp_path: Path) -> None:
    source, output = put(tmp_path, b"a\nb\nc\n"), tmp_path / "out"
    answer_some(source, output, 9)
    for changed in (b"a\nb\n", b"a\nX\nc\n", b"a\n\nb\nc\n"):
        source.write_bytes(changed)
        with pytest.raises(UsageError, match="is not the output of this batch"):
            answer_some(source, output, 1)
    source.write_bytes(b"a\nb\nc\nd\n")
    assert answer_some(source, output, 1) == 3


def test_files_that_cannot_serve(tmp_path: Path) -> None:
    source = put(tmp_path, b"a\n")
    with pytest.raises(UsageError, match="No such file"):
        open_source(tmp_path / "none")
    with pytest.raises(UsageError, match="directory"):
        open_source(tmp_path)
    with pytest.raises(UsageError, match="not a regular file"):
        open_source(Path("/dev/null"))
    for output, words in [
        (source, "batch itself"),
        (tmp_path, "directory"),
        (tmp_path / "none" / "out", "No such file"),
        (Path("/dev/null"), "not a regular file"),
    ]:
        with pytest.raises(UsageError, match=words), open_output(output, source):
            pass


def test_a_second_run_at_the_same_time_is_refused(tmp_path: Path) -> None:
    source, output = put(tmp_path, b"a\n"), tmp_path / "out"
    with (
        open_output(output, source),
        pytest.raises(UsageError, match="Another run"),
        open_output(output, source),
    ):
        pass
