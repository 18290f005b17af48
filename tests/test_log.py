"""A log record is one line even if a client's text has line breaks. Empty fields are left out."""

import json
import logging
from collections.abc import Iterator

import pytest

from dynemo.limits import LOG_CHARACTERS, LOG_LINES
from dynemo.log import set_up


def test_a_text_line_has_each_field_as_one_word_and_leaves_out_empty_ones(
    capsys: pytest.CaptureFixture[str], as_it_was: None
) -> None:
    set_up("text", 0, is_server=True)
    fields = {"model": 'a\n00:00:00 info "x"', "id": None, "finish": ["stop", "length"], "none": []}
    logging.getLogger("dynemo.http").info("chat completion: 200", extra=fields)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.split(" ", 1)[1] == (
        "info dynemo.http: chat completion: 200 "
        'model="a\\n00:00:00 info \\"x\\"" finish=stop,length\n'
    )


def test_a_json_line_keeps_every_field(capsys: pytest.CaptureFixture[str], as_it_was: None) -> None:
    set_up("json", 0, is_server=True)
    logging.getLogger("dynemo.http").info("answered", extra={"id": None, "finish": ["stop"]})
    line = json.loads(capsys.readouterr().err)
    assert (line["message"], line["id"], line["finish"]) == ("answered", None, ["stop"])


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_is_bounded(form: str, capsys: pytest.CaptureFixture[str], as_it_was: None) -> None:
    set_up(form, 0, is_server=True)
    logging.getLogger("dynemo.http").info("%s", "a" * 10**6)
    assert 1000 < len(capsys.readouterr().err) < LOG_CHARACTERS + 200


@pytest.fixture
def as_it_was() -> Iterator[None]:
    root, http = logging.getLogger(), logging.getLogger("dynemo.http")
    before = root.handlers[:], root.level, http.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    http.setLevel(before[2])


def test_lines_about_peers_are_bounded_and_others_are_not(
    capsys: pytest.CaptureFixture[str], as_it_was: None
) -> None:
    set_up("text", 0, is_server=True)
    for number in range(1000):
        logging.getLogger("dynemo.responses").warning("Closed %s.", number)
    logging.getLogger("dynemo.responses").warning("Another text.")
    for number in range(100):
        logging.getLogger("dynemo.pool").warning("Moved %s.", number)
    lines = capsys.readouterr().err.splitlines()
    assert sum("Closed" in line for line in lines) == LOG_LINES
    assert sum("left out for a while" in line for line in lines) == 1
    assert sum("Another text" in line for line in lines) == 1
    assert sum("Moved" in line for line in lines) == 100
