"""The commands `dynemo-run COMMAND`: their words and flags. Imports nothing that runs them."""

from dynemo.app.settings.options import OPTIONS
from dynemo.app.settings.values import own_port, path
from dynemo.command_line.flags import Flag, Subcommand, Word
from dynemo.environments.entry import DEVICES
from dynemo.environments.registry import ALIASES, ENGINES

ETCD_PORT = 2379
NATS_PORT = 4222
#: Settings of a run that `ps` has, too.
PS_OPTIONS = tuple(
    option for option in OPTIONS if any("ps" in scope.commands for scope in option.where)
)
#: Settings of a run that `render` has, too.
RENDER_OPTIONS = tuple(
    option for option in OPTIONS if any("render" in scope.commands for scope in option.where)
)

_MODEL = Word(
    name="MODEL",
    help="A GGUF file, a folder with a tokenizer, a Hub name, or `demo` for the model of this "
    "package.",
    is_file=True,
)
_LINES = Word(name="FILE.jsonl", help="Lines of JSON; `-` is standard input.", is_file=True)
_ENGINE = Word(
    name="NAME",
    help="The engine.",
    noun="engine",
    choices=tuple(ENGINES),
    aliases=tuple(ALIASES.items()),
    suggestions=tuple(name for name, entry in ENGINES.items() if entry.package),
)
_AS_JSON = Flag(name="--json", help="Print one JSON document.")

_RENDER = Subcommand(
    name="dynemo-run render",
    summary="Print the exact prompt that an engine gets for a conversation.",
    details="""\
FILE.json is a list of messages, or an object with `messages`, `tools` and flags. Each line of
FILE.jsonl is such an object, and one line of JSON is printed for each.""",
    words=(_MODEL,),
    flags=(
        Flag(
            name="--messages", metavar="FILE", parse=path, is_required=True,
            help="The conversation, in JSON.",
        ),
        Flag(
            name="--model-config", metavar="DIR",
            help="Take the tokenizer and the chat template from this checkout.",
        ),
        Flag(name="--tools", metavar="FILE", parse=path, help="A JSON list of tools."),
        Flag(name="--kwargs", metavar="JSON", help="The template's own variables, in an object."),
        Flag(name="--ids", help="Print token ids in place of text."),
        Flag(
            name="--as-given",
            help="Do not adapt the messages to the template: print what transformers renders.",
        ),
        *RENDER_OPTIONS,
    ),
)  # fmt: skip
_TOKENIZE = Subcommand(
    name="dynemo-run tokenize",
    summary="Print the token ids of texts.",
    details="""\
Reads lines {"text": ..., "add_special": false, "parse_special": true} and prints a line
{"ids": [...]} for each.""",
    words=(_MODEL, _LINES),
)
_DETOKENIZE = Subcommand(
    name="dynemo-run detokenize",
    summary="Print the texts of token ids, in the pieces of a stream.",
    details="""\
Reads lines {"ids": [...]} and prints a line {"deltas": [...]} for each.""",
    words=(_MODEL, _LINES),
)
_PARSE = Subcommand(
    name="dynemo-run parse",
    summary="Print the content, the reasoning and the tool calls in a model's answers.",
    details="""\
Reads lines {"text": ..., "tools": [...]} and prints a line {"pieces": [...], "message": {...}} for
each. A text that is a list is a stream in its pieces. "prompt" tells whether the model's thoughts
are open at its start; without it, the prompt of a plain question does.""",
    words=(_MODEL, _LINES),
    flags=(
        Flag(
            name="--model-config", metavar="DIR",
            help="Take the chat template from this checkout.",
        ),
        Flag(
            name="--tool-format", metavar="NAME",
            help="How the model writes tool calls (default: read from its chat template).",
        ),
        Flag(
            name="--reasoning-format", metavar="NAME",
            help="How it marks its reasoning (default: read from its chat template).",
        ),
    ),
)  # fmt: skip
_PS = Subcommand(
    name="dynemo-run ps",
    summary="List the registered instances: models, engines, load, age.",
    details="""\
Lists the instances that discovery has, of all namespaces, and asks each for its load: sequences
that are computed, sequences that wait, and the share of the KV cache in use.""",
    flags=(
        _AS_JSON,
        Flag(name="--watch", help="Print the list every 2 s, until Ctrl-C."),
        *PS_OPTIONS,
    ),
)
_DRAIN = Subcommand(
    name="dynemo-run drain",
    summary="Ask workers to finish their streams and to end.",
    details="""\
A worker that drains takes no new requests, finishes its streams within its --grace, and hands the
rest to other workers. Its process ends with code 0.""",
    words=(
        Word(name="INSTANCE", help="The start of an id that `ps` shows.", is_optional=True),
    ),
    flags=(
        Flag(
            name="--host", metavar="HOST",
            help="Drain all instances of this host instead: its name, or `localhost`.",
        ),
        *PS_OPTIONS,
    ),
)  # fmt: skip
_ENGINE_COMMANDS = Subcommand(
    name="dynemo-run engine",
    summary="Install engines into environments of their own, list and check them.",
    details="An engine that clashes with others gets a Python environment of its own.",
    commands=(
        Subcommand(
            name="dynemo-run engine install",
            summary="Make the environment of an engine, with pinned versions.",
            words=(_ENGINE,),
            flags=(
                Flag(
                    name="--device", metavar="DEVICE", choices=DEVICES,
                    help=f"What the engine computes on: {', '.join(DEVICES)} "
                    "(default: what this machine has).",
                ),
                Flag(
                    name="--python", metavar="PATH", parse=path,
                    help="The Python to make the environment with (default: this one).",
                ),
            ),
        ),
        Subcommand(
            name="dynemo-run engine remove",
            summary="Remove the environment of an engine.",
            words=(_ENGINE,),
        ),
        Subcommand(
            name="dynemo-run engine list",
            summary="List the engines: whether and where each is installed, and what it can do.",
            flags=(_AS_JSON,),
        ),
        Subcommand(
            name="dynemo-run engine doctor",
            summary="Load the demo model in each installed engine, and say what is wrong.",
            words=(Word(
                name="NAME", help="Only this engine.", noun="engine", choices=tuple(ENGINES),
                aliases=_ENGINE.aliases, suggestions=_ENGINE.suggestions, is_optional=True,
            ),),
        ),
    ),
)  # fmt: skip
_PORTS = (
    Flag(
        name="--etcd-port", metavar="PORT", parse=own_port,
        help=f"The port of etcd (default: {ETCD_PORT}).",
    ),
    Flag(
        name="--nats-port", metavar="PORT", parse=own_port,
        help=f"The port of nats-server (default: {NATS_PORT}).",
    ),
)  # fmt: skip
_SERVICES = Subcommand(
    name="dynemo-run services",
    summary="Start etcd and nats-server on this machine, and stop them.",
    details="""\
For a pool of workers on one host. Both servers listen on 127.0.0.1 only. Data, logs and pids are in
~/.local/share/dynemo-run/services (XDG_DATA_HOME moves it).""",
    commands=(
        Subcommand(
            name="dynemo-run services up",
            summary="Start both, and return when they answer.",
            flags=_PORTS,
        ),
        Subcommand(name="dynemo-run services down", summary="Stop both.", flags=_PORTS),
        Subcommand(
            name="dynemo-run services status",
            summary="Say whether each runs; the exit code is 1 unless both do.",
            flags=_PORTS,
        ),
    ),
)
_COMPLETION = Subcommand(
    name="dynemo-run completion",
    summary="Print a script that completes this command in your shell.",
    details="""\
  bash   eval "$(dynemo-run completion bash)"     in ~/.bashrc
  zsh    eval "$(dynemo-run completion zsh)"      in ~/.zshrc, after compinit
  fish   dynemo-run completion fish | source      in ~/.config/fish/config.fish""",
    words=(Word(name="SHELL", noun="shell", choices=("bash", "zsh", "fish")),),
)
COMMANDS = (
    _RENDER,
    _PARSE,
    _TOKENIZE,
    _DETOKENIZE,
    _PS,
    _DRAIN,
    _ENGINE_COMMANDS,
    _SERVICES,
    _COMPLETION,
)
