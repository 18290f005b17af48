"""The subcommands: their own words and flags, and what each does with them."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dynemo.commands.parser import Parser
from dynemo.config import OPTIONS, build_config, read
from dynemo.engines.registry import ENGINES

if TYPE_CHECKING:
    from dynemo.models.find import Found

_MODEL = "a GGUF, a folder with a tokenizer, or a Hub name; `demo` is the model that ships with us"


def run_command(argv: Sequence[str], names: Iterable[str]) -> int:
    """Runs one subcommand; the first word is its name, and one of `names`. Returns the exit code.

    Raises UsageError or ModelError.
    """
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "render": _render,
        "tokenize": _tokenize,
        "detokenize": _detokenize,
        "ps": _ps,
        "services": _services,
        "engine": _engine,
        "completion": lambda rest: _completion(rest, names),
    }
    try:
        return commands[argv[0]](argv[1:])
    except BrokenPipeError:  # `| head`: the reader has what it wanted
        sys.stdout = None
        return 0


def _parser(name: str, description: str) -> Parser:
    return Parser(
        prog=f"dynemo-run {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _render(words: Sequence[str]) -> int:
    from dynemo.commands import render
    from dynemo.models.load import speech_of

    parser = _parser(
        "render",
        "Prints the exact prompt that an engine would get.\n\n"
        "FILE.json is a list of messages, or an object with messages, tools and flags; of\n"
        "FILE.jsonl each line is such an object, and one line of JSON comes out for each.",
    )
    parser.add_argument("model", metavar="MODEL", help=_MODEL)
    parser.add_argument("--messages", metavar="FILE", type=Path, required=True)
    parser.add_argument("--tools", metavar="FILE", type=Path, help="a JSON list of tools")
    parser.add_argument("--kwargs", metavar="JSON", help="the template's own variables")
    parser.add_argument("--ids", action="store_true", help="print token ids, not text")
    parser.add_argument(
        "--as-given",
        action="store_true",
        help="do not adapt messages to the template: what transformers would render",
    )
    given = parser.parse_args(words)
    tools = render.read_tools(given.tools) if given.tools else None
    kwargs = render.parse_kwargs(given.kwargs) if given.kwargs else None
    template, tokenizer = speech_of(_found(given.model))
    renderer = render.Renderer(
        template, tokenizer, tools=tools, kwargs=kwargs, adapt=not given.as_given
    )
    if render.is_lines(given.messages):
        return _print(renderer.render_lines(render.read_lines(given.messages)))
    prompt = renderer.render_one(render.read_json(given.messages))
    return _print([str(prompt.token_ids) if given.ids else prompt.text])


def _tokenize(words: Sequence[str]) -> int:
    from dynemo.commands.tokenize import tokenize

    return _on_lines(
        "tokenize",
        'Text to token ids: {"text": ..., "add_special": false, "parse_special": true} a line in,\n'
        '{"ids": [...]} a line out. `-` reads standard input.',
        words,
        tokenize,
    )


def _detokenize(words: Sequence[str]) -> int:
    from dynemo.commands.tokenize import detokenize

    return _on_lines(
        "detokenize",
        'Token ids to text, as a stream would give it: {"ids": [...]} a line in,\n'
        '{"deltas": [...]} a line out. `-` reads standard input.',
        words,
        detokenize,
    )


def _on_lines(name: str, description: str, words: Sequence[str], work: Callable[..., int]) -> int:
    from dynemo.models.load import tokenizer_of

    parser = _parser(name, description)
    parser.add_argument("model", metavar="MODEL", help=_MODEL)
    parser.add_argument("file", metavar="FILE.jsonl", type=Path)
    given = parser.parse_args(words)
    tokenizer = tokenizer_of(_found(given.model))
    work(tokenizer, given.file, sys.stdout)
    return 0


def _ps(words: Sequence[str]) -> int:
    parser = _parser(
        "ps",
        "Lists the instances that discovery names, in all namespaces, and asks each for its load:\n"
        "sequences being computed, sequences that wait, and the share of the KV cache in use.\n\n"
        "A variable or a file of --config says where the servers are, as for the workers.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--watch", action="store_true", help="again every 2 s, until Ctrl-C")
    own = [
        option
        for option in OPTIONS
        if option.name in ("discovery", "etcd", "nats", "wait", "config")
    ]
    for option in own:
        parser.add_argument(
            option.flag, metavar=option.metavar, help=option.help, default=argparse.SUPPRESS
        )
    given = vars(parser.parse_args(words))
    as_json, is_watching = given.pop("json"), given.pop("watch")
    flags = {
        option.name: read(option, given[option.name], option.flag)
        for option in own
        if option.name in given
    }
    config = build_config(flags)
    from dynemo.commands.ps import ps

    return ps(config, as_json=as_json, is_watching=is_watching)


def _services(words: Sequence[str]) -> int:
    from dynemo.commands import services

    acts = {"up": services.up, "down": services.down, "status": services.status}
    parser = _parser(
        "services",
        "etcd and nats-server on this machine, for a pool of workers on one host or to try one.\n\n"
        "  up      starts both, listening on 127.0.0.1 alone, and returns when they answer\n"
        "  down    ends both\n"
        "  status  says of each whether it runs; exit code 1 unless both do\n\n"
        f"Data, logs and pids are in {services.folder()}.",
    )
    parser.add_argument("act", choices=acts, metavar="up|down|status")
    for kind in (services.ETCD, services.NATS):
        parser.add_argument(
            kind.flag, metavar="PORT", type=_port, default=kind.port, help=f"({kind.port})"
        )
    given = parser.parse_args(words)
    return acts[given.act](services.servers(given.etcd_port, given.nats_port))


def _engine(words: Sequence[str]) -> int:
    from dynemo.commands.engine import run_engine

    return run_engine(words)


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port")
    return port


def _completion(words: Sequence[str], names: Iterable[str]) -> int:
    from dynemo.commands.completion import SHELLS, script

    parser = _parser(
        "completion",
        "Prints a script that completes dynemo-run in your shell:\n\n"
        '  bash   eval "$(dynemo-run completion bash)"     in ~/.bashrc\n'
        '  zsh    eval "$(dynemo-run completion zsh)"      in ~/.zshrc, after compinit\n'
        "  fish   dynemo-run completion fish | source      in ~/.config/fish/config.fish",
    )
    parser.add_argument("shell", choices=SHELLS)
    given = parser.parse_args(words)
    here = [*(name for name, entry in ENGINES.items() if entry.is_here), "dyn://"]
    flags = [option.flag for option in OPTIONS] + ["--help", "--version"]
    inputs = ["text", "stdin", "http", "batch:", "dyn://"]
    text = script(
        given.shell,
        inputs=inputs,
        outputs=here,
        engines=[name for name, entry in ENGINES.items() if entry.package],
        flags=flags,
        commands=list(names),
    )
    print(text)
    return 0


def _found(word: str) -> "Found":
    """The model; a folder that holds a tokenizer and no model is enough."""
    from dynemo.models.find import Found, find_model

    folder = Path(word).expanduser()
    if (folder / "tokenizer.json").is_file():
        return Found("checkout", folder, folder.name)
    return find_model(word)


def _print(lines: Iterable[str]) -> int:
    for line in lines:
        print(line)
    sys.stdout.flush()
    return 0
