"""Reads words and flags of a command line. Every error is one sentence."""

import pytest

from dynemo.command_line.flags import HELP, Flag, Subcommand, Word
from dynemo.command_line.help import command_help
from dynemo.command_line.read import asks_for_help, find_command, read_command, read_flags
from dynemo.errors import UsageError

FLAGS = (
    Flag(name="--http-port", metavar="PORT", parse=int, help="The port.", aliases=("--port",)),
    Flag(name="--mode", metavar="MODE", choices=("random", "prefix"), help="The mode."),
    Flag(name="--json", help="Print JSON."),
    Flag(name="-v", help="Say more."),
)
INSTALL = Subcommand(
    name="run install",
    summary="Install it.",
    words=(Word(name="NAME", noun="engine", choices=("vllm", "echo"), aliases=(("v", "vllm"),)),),
    flags=(Flag(name="--to", metavar="DIR", help="The place.", is_required=True),),
)
LIST = Subcommand(
    name="run list",
    summary="List all.",
    words=(Word(name="FILE.jsonl", help="A file.", is_file=True, is_optional=True),),
)
TOP = Subcommand(name="run", summary="Do things.", commands=(INSTALL, LIST))


@pytest.mark.parametrize(
    ("argv", "given", "words"),
    [
        ([], {}, []),
        (["a", "--http-port", "1", "b"], {"http_port": 1}, ["a", "b"]),
        (["--port=2", "-"], {"http_port": 2}, ["-"]),
        (["-vv", "-v", "--json"], {"v": 3, "json": 1}, []),
        (["--mode", "prefix", "in=http"], {"mode": "prefix"}, ["in=http"]),
        (["--http-port", "-5"], {"http_port": -5}, []),
        (["--http-port", "1", "--port=2"], {"http_port": 2}, []),
        (["--mode="], UsageError, 'Unknown value "" for --mode'),
    ],
)
def test_words_and_flags_are_read(argv: list[str], given: object, words: object) -> None:
    if given is UsageError:
        with pytest.raises(UsageError, match=str(words)):
            read_flags(argv, FLAGS)
    else:
        assert read_flags(argv, FLAGS) == (given, words)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--http-prt", "1"], 'Unknown flag "--http-prt"; did you mean "--http-port"?'),
        (["--http"], 'Unknown flag "--http"; did you mean "--http-port"?'),  # an abbreviation
        (["--jso"], 'Unknown flag "--jso"; did you mean "--json"?'),
        (["--seed=1"], 'Unknown flag "--seed"; see the list.'),
        (["-x"], 'Unknown flag "-x"; see the list.'),
        (["-vx"], 'Unknown flag "-vx"; did you mean "-v"?'),
        (["--http-port"], "--http-port needs a value: --http-port PORT."),
        (["--port", "--json"], "--port needs a value: --port PORT."),
        (["--port", "-v"], "--port needs a value: --port PORT."),
        (["--json=1"], '--json takes no value, but got "1".'),
        (["--mode", "prefx"], 'Unknown value "prefx" for --mode; did you mean "prefix"?'),
        (["--mode", "best"], 'Unknown value "best" for --mode; choose one of random, prefix.'),
    ],
)
def test_a_wrong_flag(argv: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_flags(argv, FLAGS, otherwise="see the list.")
    assert str(caught.value) == sentence


def test_the_error_for_a_bad_value_quotes_it_and_lists_the_good_ones() -> None:
    def even(text: str) -> int:
        if not text.isdigit() or int(text) % 2:
            raise ValueError("an even number")
        return int(text)

    flag = Flag(name="--n", metavar="N", parse=even, help="A number.")
    assert read_flags(["--n", "4"], [flag]) == ({"n": 4}, [])
    with pytest.raises(UsageError, match=r'^--n takes an even number, not "5"\.$'):
        read_flags(["--n", "5"], [flag])


def read(*argv: str) -> dict[str, object]:
    command, words = find_command(TOP, argv)
    return {"command": command.word, **read_command(command, words)}


def test_the_commands_of_a_command() -> None:
    assert read("install", "v", "--to", "x") == {"command": "install", "name": "vllm", "to": "x"}
    assert read("list") == {"command": "list"}
    assert read("list", "a") == {"command": "list", "file": "a"}


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "`run` needs a command after it; choose one of install, list."),
        (["--to", "x"], "`run` needs a command after it; choose one of install, list."),
        (["instal"], 'Unknown run command "instal"; did you mean "install"?'),
        (["install", "vlm", "--to", "x"], 'Unknown engine "vlm"; did you mean "vllm"?'),
        (["install", "x", "--to", "x"], 'Unknown engine "x"; choose one of vllm, echo.'),
        (["install", "vllm"], "`run install` needs --to DIR."),
        (
            ["install", "--to", "x"],
            "`run install` needs NAME after it; choose one of vllm, echo.",
        ),
        (["install", "vllm", "--tp", "x"], 'Unknown flag "--tp"; choose one of --to, --help, -h.'),
        (["list", "a", "b"], 'Unexpected word "b"; see `run list --help`.'),
    ],
)
def test_a_wrong_command(argv: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*argv)
    assert str(caught.value) == sentence


def test_help_has_every_word_and_flag() -> None:
    assert asks_for_help(["a", "-h"])
    assert asks_for_help(HELP.spellings)
    assert not asks_for_help(["help"])
    text = command_help(INSTALL)
    assert text.startswith("usage: run install NAME --to DIR [flags]\n\nInstall it.\n")
    assert "  --to DIR                The place.\n" in text
    assert "  install     Install it.\n  list        List all.\n" in command_help(TOP)
    assert "usage: run list [FILE.jsonl]\n" in command_help(LIST)
