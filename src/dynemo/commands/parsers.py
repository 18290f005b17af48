"""The words and flags of each subcommand, for `dispatch` and for shell completion."""

import argparse
from collections.abc import Callable
from pathlib import Path

from dynemo.app.config import OPTIONS, Option
from dynemo.commands import services
from dynemo.commands.engine.command import engine_parser
from dynemo.commands.parser import Parser

SHELLS = ("bash", "zsh", "fish")
ACTS = ("up", "down", "status")
#: Settings of a run that `ps` has, too.
PS_OPTIONS = tuple(
    option
    for option in OPTIONS
    if option.name in ("discovery", "etcd", "nats", "tls", "wait", "config")
)

_MODEL = "a GGUF, a folder with a tokenizer, or a Hub name; `demo` is the model that ships with us"


def _parser(name: str, description: str) -> Parser:
    return Parser(
        prog=f"dynemo-run {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def render_parser() -> Parser:
    parser = _parser(
        "render",
        "Prints the exact prompt that an engine would get.\n\n"
        "FILE.json is a list of messages, or an object with messages, tools and flags; of\n"
        "FILE.jsonl each line is such an object, and one line of JSON comes out for each.",
    )
    parser.add_argument("model", metavar="MODEL", help=_MODEL)
    parser.add_argument("--messages", metavar="FILE", type=Path, required=True)
    parser.add_argument(
        "--model-config", metavar="DIR", help="a checkout to take tokenizer and chat template from"
    )
    parser.add_argument("--tools", metavar="FILE", type=Path, help="a JSON list of tools")
    parser.add_argument("--kwargs", metavar="JSON", help="the template's own variables")
    parser.add_argument("--ids", action="store_true", help="print token ids, not text")
    parser.add_argument(
        "--as-given",
        action="store_true",
        help="do not adapt messages to the template: what transformers would render",
    )
    return parser


def tokenize_parser() -> Parser:
    return _on_lines(
        "tokenize",
        'Text to token ids: {"text": ..., "add_special": false, "parse_special": true} a line in,\n'
        '{"ids": [...]} a line out. `-` reads standard input.',
    )


def detokenize_parser() -> Parser:
    return _on_lines(
        "detokenize",
        'Token ids to text, as a stream would give it: {"ids": [...]} a line in,\n'
        '{"deltas": [...]} a line out. `-` reads standard input.',
    )


def _on_lines(name: str, description: str) -> Parser:
    parser = _parser(name, description)
    parser.add_argument("model", metavar="MODEL", help=_MODEL)
    parser.add_argument("file", metavar="FILE.jsonl", type=Path)
    return parser


def ps_parser() -> Parser:
    parser = _parser(
        "ps",
        "Lists the instances that discovery names, in all namespaces, and asks each for its load:\n"
        "sequences being computed, sequences that wait, and the share of the KV cache in use.\n\n"
        "A variable or a file of --config says where the servers are, as for the workers.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--watch", action="store_true", help="again every 2 s, until Ctrl-C")
    for option in PS_OPTIONS:
        _add_option(parser, option)
    return parser


def _add_option(parser: Parser, option: Option) -> None:
    parser.add_argument(
        option.flag, metavar=option.metavar, help=option.help, default=argparse.SUPPRESS
    )


def services_parser() -> Parser:
    parser = _parser(
        "services",
        "etcd and nats-server on this machine, for a pool of workers on one host or to try one.\n\n"
        "  up      starts both, listening only on 127.0.0.1, and returns when they answer\n"
        "  down    ends both\n"
        "  status  says of each whether it runs; exit code 1 unless both do\n\n"
        f"Data, logs and pids are in {services.folder()}.",
    )
    parser.add_argument("act", choices=ACTS, metavar="|".join(ACTS))
    for kind in (services.ETCD, services.NATS):
        parser.add_argument(
            kind.flag, metavar="PORT", type=_port, default=kind.port, help=f"({kind.port})"
        )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"it takes a port from 1 to 65535, not {text!r}")
    return int(text)


def completion_parser() -> Parser:
    parser = _parser(
        "completion",
        "Prints a script that completes dynemo-run in your shell:\n\n"
        '  bash   eval "$(dynemo-run completion bash)"     in ~/.bashrc\n'
        '  zsh    eval "$(dynemo-run completion zsh)"      in ~/.zshrc, after compinit\n'
        "  fish   dynemo-run completion fish | source      in ~/.config/fish/config.fish",
    )
    parser.add_argument("shell", choices=SHELLS)
    return parser


PARSERS: dict[str, Callable[[], Parser]] = {
    "render": render_parser,
    "tokenize": tokenize_parser,
    "detokenize": detokenize_parser,
    "ps": ps_parser,
    "engine": engine_parser,
    "services": services_parser,
    "completion": completion_parser,
}
