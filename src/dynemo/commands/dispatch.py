"""The subcommands: what each does with its words and flags."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dynemo.app.config import build_config, read
from dynemo.commands import parsers

if TYPE_CHECKING:
    from dynemo.models.find import Found


def run_command(argv: Sequence[str]) -> int:
    """Runs one subcommand; the first word is its name, one of `parsers.PARSERS`. Returns the exit
    code. Raises UsageError or ModelError.
    """
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "render": _render,
        "tokenize": _tokenize,
        "detokenize": _detokenize,
        "ps": _ps,
        "services": _services,
        "engine": _engine,
        "completion": _completion,
    }
    try:
        return commands[argv[0]](argv[1:])
    except BrokenPipeError:  # `| head`: the reader has what it wanted
        sys.stdout = None
        return 0


def _render(words: Sequence[str]) -> int:
    from dynemo.commands import render
    from dynemo.models.load import template_and_tokenizer_of

    given = parsers.render_parser().parse_args(words)
    tools = render.read_tools(given.tools) if given.tools else None
    kwargs = render.parse_kwargs(given.kwargs) if given.kwargs else None
    template, tokenizer = template_and_tokenizer_of(_found(given.model), given.model_config)
    renderer = render.Renderer(
        template, tokenizer, tools=tools, kwargs=kwargs, adapt=not given.as_given
    )
    if render.is_lines(given.messages):
        return _print(renderer.render_lines(render.read_lines(given.messages)))
    prompt = renderer.render_one(render.read_json(given.messages))
    return _print([str(prompt.token_ids) if given.ids else prompt.text])


def _tokenize(words: Sequence[str]) -> int:
    from dynemo.commands.tokenize import tokenize
    from dynemo.models.load import tokenizer_of

    given = parsers.tokenize_parser().parse_args(words)
    tokenize(tokenizer_of(_found(given.model)), given.file, sys.stdout)
    return 0


def _detokenize(words: Sequence[str]) -> int:
    from dynemo.commands.tokenize import detokenize
    from dynemo.models.load import tokenizer_of

    given = parsers.detokenize_parser().parse_args(words)
    detokenize(tokenizer_of(_found(given.model)), given.file, sys.stdout)
    return 0


def _ps(words: Sequence[str]) -> int:
    given = vars(parsers.ps_parser().parse_args(words))
    as_json, is_watching = given.pop("json"), given.pop("watch")
    flags = {
        option.name: read(option, given[option.name], option.flag)
        for option in parsers.PS_OPTIONS
        if option.name in given
    }
    config = build_config(flags)
    from dynemo.commands.ps import ps

    return ps(config, as_json=as_json, is_watching=is_watching)


def _services(words: Sequence[str]) -> int:
    from dynemo.commands import services

    given = parsers.services_parser().parse_args(words)
    acts = {"up": services.up, "down": services.down, "status": services.status}
    return acts[given.act](services.servers(given.etcd_port, given.nats_port))


def _engine(words: Sequence[str]) -> int:
    from dynemo.commands.engine.command import run_engine

    return run_engine(words)


def _completion(words: Sequence[str]) -> int:
    from dynemo.commands.completion import grammar, script

    given = parsers.completion_parser().parse_args(words)
    return _print([script(given.shell, grammar())])


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
