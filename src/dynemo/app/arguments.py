"""The command line: words in, a `Config` out. Imports no engine, no loop, no tokenizer."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dynemo import __version__
from dynemo.app.config import ENGINE, NETWORK, OPTIONS, Config, build_config, read
from dynemo.commands.parser import Parser
from dynemo.environments.registry import ALIASES, ENGINES
from dynemo.errors import UsageError
from dynemo.planes.names import parse_name
from dynemo.spelling import nearest

USAGE = "dynemo-run [in=…] [out=…] [MODEL] [flags] [-- engine options]"
INPUTS = ("text", "stdin", "http", "batch:FILE", "dyn://NAME", "none")
OUTPUTS = (*ENGINES, "echo:text", "FILE.py", "dyn://NAME")
COMMANDS = {
    "render": "the exact prompt that the engine would get for a conversation",
    "tokenize": "text to token ids",
    "detokenize": "token ids to text, as a stream would give it",
    "ps": "the instances that are registered: models, engines, load, age",
    "engine": "installs engines into environments of their own, lists and checks them",
    "services": "starts etcd and nats-server on this machine, and ends them",
    "completion": "a script that completes this command in your shell",
}

_DESCRIPTION = """\
Serve a large language model: a chat in this terminal, an OpenAI-compatible API, a file of prompts.

  in=    where requests come from: text (a chat; default on a terminal), stdin (one prompt; default
         otherwise), http (an OpenAI-compatible server), batch:FILE.jsonl (a file of prompts),
         dyn://NAME (a worker: from the ingresses of that pool), none (a rank above 0 of an engine
         on several machines)
  out=   what answers them: llama_cpp (the default for a GGUF), mistralrs (for a checkout), vllm,
         sglang, trtllm, echo (the prompt's own tokens, for tests; echo:text: the last message),
         FILE.py (an engine of your own), or dyn://NAME (an ingress: the workers of that pool;
         `dyn` alone: those of every one-part NAME)
  MODEL  a GGUF file, a Hugging Face checkout's folder, or a Hub name (org/repo, org/repo:Q4_K_M);
         none: the small demo model that comes with the package
"""
_EXAMPLES = """\
examples:
  dynemo-run                                            chat with the demo model
  dynemo-run Llama-3.2-1B-Instruct-Q4_K_M.gguf          chat with a model of yours
  echo "What is the capital of South Africa?" | dynemo-run
  dynemo-run in=http MODEL --http-port 8080             serve it to OpenAI clients
  dynemo-run in=batch:prompts.jsonl MODEL               answer a file of prompts
  dynemo-run in=http out=llama_cpp MODEL -- --threads 8 --flash-attn on
  dynemo-run in=dyn://pool MODEL                        a worker; as many as you like, and
  dynemo-run in=http out=dyn://pool                     an ingress in front of them

commands (dynemo-run COMMAND --help):
"""


@dataclass(frozen=True)
class Input:
    """One side of the run: `kind` before the colon, `value` behind it."""

    kind: str
    value: str = ""


def parser() -> argparse.ArgumentParser:
    """The runner's own parser; shell completion reads it too."""
    width = max(map(len, COMMANDS)) + 2
    commands = "".join(f"  {name:<{width}}{text}\n" for name, text in COMMANDS.items())
    made = Parser(
        prog="dynemo-run",
        usage=USAGE,
        description=_DESCRIPTION,
        epilog=_EXAMPLES + commands + "\nEvery setting is also a variable, DYNEMO_HTTP_PORT, and "
        "a key in the file of --config.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        add_help=False,
    )
    made.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    groups: dict[str, Any] = {}
    for option in OPTIONS:
        if option.group not in groups:
            groups[option.group] = made.add_argument_group(option.group)
        groups[option.group].add_argument(
            option.flag, *option.flags, dest=option.name, metavar=option.metavar, help=option.help
        )
    general = groups["general"]
    general.add_argument(
        "-v", dest="verbosity", action="count", help="say more; -vv shows everything"
    )
    general.add_argument("--version", action="version", version=f"dynemo-run {__version__}")
    general.add_argument("--help", "-h", action="help", help="show this help")
    return made


def parse(argv: Sequence[str]) -> Config:
    """The settings of a run. Raises UsageError."""
    own, engine_options = _split_at_dashes(argv)
    given, rest = _read_words(own)
    flags = _typed(given)
    for word in rest:
        key, equals, value = word.partition("=")
        key = key if equals and key in ("in", "out") else "model"
        if key in flags:
            raise UsageError(_twice(key, flags[key], value if key != "model" else word))
        flags[key] = value if key != "model" else word
    config = build_config(flags)
    config = replace(config, engine_options=tuple(engine_options))
    _check_modes(flags, parse_input(config.input), parse_output(config.out))
    return config


def _read_words(own: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Flags as argparse read them, and the other words."""
    try:
        namespace, unknown = parser().parse_known_intermixed_args(own)
    except argparse.ArgumentError as error:
        raise UsageError(f"{error}; see `dynemo-run --help`.") from None
    if unknown:
        raise UsageError(f"Unknown flag {unknown[0]!r}; {_nearest_flag(unknown[0])}")
    flags = vars(namespace)
    return flags, flags.pop("words", [])


def parse_input(word: str) -> Input:
    """`in=`'s value; the default depends on whether a person is at the keyboard."""
    if not word:
        return Input("text" if sys.stdin.isatty() and sys.stdout.isatty() else "stdin")
    if word in ("text", "stdin", "http", "none"):
        return Input(word)
    if word.startswith("batch:") and len(word) > len("batch:"):
        return Input("batch", word[len("batch:") :])
    if word == "batch" or word == "batch:":
        raise UsageError("in=batch needs a file of JSON lines: in=batch:prompts.jsonl.")
    if word.startswith("dyn://"):
        parse_name(word)
        return Input("dyn", word)
    names = ("text", "stdin", "http", "batch:", "none", "dyn://")
    raise UsageError(_unknown("in", word, names, INPUTS))


def parse_output(word: str) -> str:
    """`out=`'s engine or `dyn://` name, or empty for the default engine."""
    name = ALIASES.get(word, word)
    if name == "dyn" or name.startswith("dyn://"):
        parse_name(name)
        return name
    if not name or name in ("echo:text", *ENGINES) or name.endswith(".py"):
        return name
    raise UsageError(_unknown("out", word, tuple(ENGINES), OUTPUTS))


def _unknown(side: str, word: str, names: Sequence[str], all_forms: Sequence[str]) -> str:
    near = nearest(word, names)
    hint = f"did you mean {side}={near}? " if near else ""
    return f"Unknown {side}={word}: {hint}{side}= takes {', '.join(all_forms)}."


def _twice(key: str, first: str, second: str) -> str:
    what = "MODEL" if key == "model" else f"{key}="
    return f"{what} is given twice: {first!r} and {second!r}; keep one."


def _nearest_flag(flag: str) -> str:
    near = nearest(flag.split("=")[0], [option.flag for option in OPTIONS])
    if near:
        return f"did you mean {near}?"
    return "an engine's own options go after `--`; `dynemo-run --help` lists ours."


def _typed(flags: dict[str, Any]) -> dict[str, Any]:
    for option in OPTIONS:
        if option.name in flags:
            flags[option.name] = read(option, flags[option.name], option.flag)
    return flags


def _check_modes(flags: dict[str, Any], place: Input, out: str) -> None:
    """A flag that this run does not have is refused; variables and files are for all runs."""
    is_network = place.kind == "dyn" or out.startswith("dyn")
    for option in OPTIONS:
        if option.name in flags and option.group == NETWORK and not is_network:
            raise UsageError(f"{option.flag} is for in=dyn://NAME and out=dyn://NAME.")
        if option.name in flags and option.group == ENGINE and out.startswith("dyn"):
            raise UsageError(f"{option.flag} is for an engine; give it to the workers of {out}.")
    for option in OPTIONS:
        if option.name in flags and option.modes and place.kind not in option.modes:
            where = " and ".join(f"in={mode}" for mode in sorted(option.modes, reverse=True))
            raise UsageError(f"{option.flag} is for {where}, and this is in={place.kind}.")


def _split_at_dashes(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    words = list(argv)
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]
