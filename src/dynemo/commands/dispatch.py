"""Runs a command of the table with the words and flags that were given."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynemo.app.settings.config import Setting, collect
from dynemo.app.settings.modes import Mode
from dynemo.app.settings.option import Option
from dynemo.app.settings.options import Config
from dynemo.command_line.help import command_help
from dynemo.command_line.read import asks_for_help, find_command, read_command
from dynemo.commands.table import COMMANDS, ETCD_PORT, NATS_PORT, PS_OPTIONS, RENDER_OPTIONS
from dynemo.spelling import visible

if TYPE_CHECKING:
    from dynemo.models.find import Found

Given = Mapping[str, Any]  #: the values of flags and words, by key; those not given are missing


def run_command(argv: Sequence[str]) -> int:
    """Runs one command; `argv[0]` is its word. Returns the exit code. Raises UsageError and
    ModelError."""
    top = next(command for command in COMMANDS if command.word == argv[0])
    try:
        if asks_for_help(argv):
            words = [word for word in argv[1:] if not word.startswith("-")]
            command = find_command(top, words)[0] if words or not top.commands else top
            return _print([command_help(command)])
        command, words = find_command(top, argv[1:])
        run = _RUNS[command.name.removeprefix("dynemo-run ")]
        return run(read_command(command, words))
    except BrokenPipeError:  # `| head` has what it wanted
        sys.stdout = None
        return 0


def _render(given: Given) -> int:
    from dynemo.commands import render
    from dynemo.models.load import prompt_parts_of

    tools = render.read_tools(given["tools"]) if "tools" in given else None
    kwargs = render.parse_kwargs(given["kwargs"]) if "kwargs" in given else None
    config = _config(given, "render", RENDER_OPTIONS)
    parts = prompt_parts_of(_find(given["model"]), given.get("model_config"))
    renderer = render.Renderer(
        parts.template,
        parts.tokenizer,
        tools=tools,
        kwargs=kwargs,
        adapt="as_given" not in given,
        control=parts.control if config.special_tokens_in_content == "text" else None,
    )
    messages = given["messages"]
    if render.is_lines(messages):
        return _print(renderer.render_lines(render.read_lines(messages)))
    prompt = renderer.render_one(render.read_json(messages))
    return _print([str(prompt.token_ids) if "ids" in given else prompt.text])


def _tokenize(given: Given) -> int:
    from dynemo.commands.tokenize import tokenize
    from dynemo.models.load import tokenizer_of

    tokenize(tokenizer_of(_find(given["model"])), given["file"], sys.stdout)
    return 0


def _detokenize(given: Given) -> int:
    from dynemo.commands.tokenize import detokenize
    from dynemo.models.load import tokenizer_of

    detokenize(tokenizer_of(_find(given["model"])), given["file"], sys.stdout)
    return 0


def _parse(given: Given) -> int:
    from dynemo.commands.parse import parse
    from dynemo.models.load import template_and_tokenizer_of

    template, _ = template_and_tokenizer_of(_find(given["model"]), given.get("model_config"))
    formats = (given.get("tool_format", ""), given.get("reasoning_format", ""))
    parse(template, given["file"], sys.stdout, formats)
    return 0


def _ps(given: Given) -> int:
    from dynemo.commands.ps import ps

    return ps(_pool_config(given), as_json="json" in given, is_watching="watch" in given)


def _drain(given: Given) -> int:
    from dynemo.commands.drain import drain

    return drain(_pool_config(given), given.get("instance", ""), given.get("host", ""))


def _pool_config(given: Given) -> Config:
    """The settings of a command that asks the workers of a pool."""
    return _config(given, "ps", PS_OPTIONS)


def _config(given: Given, command: str, options: Iterable[Option]) -> Config:
    """The settings of a run that a command has, too."""
    flags = {
        option.field: Setting(given[option.key], option.name, "", is_flag=True)
        for option in options
        if option.key in given
    }
    config, _ = collect(flags).for_mode(Mode(command=command))
    return config


def _services_up(given: Given) -> int:
    from dynemo.commands import services

    return services.up(_servers(given))


def _services_down(given: Given) -> int:
    from dynemo.commands import services

    return services.down(_servers(given))


def _services_status(given: Given) -> int:
    from dynemo.commands import services

    return services.status(_servers(given))


def _servers(given: Given) -> Any:
    from dynemo.commands.services import servers

    return servers(given.get("etcd_port", ETCD_PORT), given.get("nats_port", NATS_PORT))


def _install(given: Given) -> int:
    from dynemo.commands.engine.install import install
    from dynemo.environments.variants import find_variant

    variant = find_variant(given["name"], given.get("device"))
    return install(variant, str(given.get("python", sys.executable)))


def _remove(given: Given) -> int:
    from dynemo.commands.engine.install import remove

    return remove(given["name"])


def _list(given: Given) -> int:
    from dynemo.commands.engine.list import list_engines

    return list_engines(as_json="json" in given)


def _doctor(given: Given) -> int:
    from dynemo.commands.engine.doctor import doctor

    return doctor(given.get("name"))


def _completion(given: Given) -> int:
    from dynemo.commands.completion import grammar, script

    return _print([script(given["shell"], grammar())])


_RUNS: dict[str, Callable[[Given], int]] = {
    "render": _render,
    "parse": _parse,
    "tokenize": _tokenize,
    "detokenize": _detokenize,
    "ps": _ps,
    "drain": _drain,
    "services up": _services_up,
    "services down": _services_down,
    "services status": _services_status,
    "engine install": _install,
    "engine remove": _remove,
    "engine list": _list,
    "engine doctor": _doctor,
    "completion": _completion,
}


def _find(word: str) -> "Found":
    """The model; a folder with a tokenizer and no model is enough."""
    from dynemo.models.find import Found, find_model

    folder = Path(word).expanduser()
    if (folder / "tokenizer.json").is_file():
        return Found("checkout", folder, folder.name)
    return find_model(word)


def _print(lines: Iterable[str]) -> int:
    # A pipe or a file gets the exact text.
    is_terminal = sys.stdout.isatty()
    for line in lines:
        print(visible(line) if is_terminal else line)
    sys.stdout.flush()
    return 0
