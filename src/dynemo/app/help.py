"""`dynemo-run --help`: what a run is, and the flags of one mode, of most runs, or of all."""

from collections.abc import Iterable, Iterator, Sequence

from dynemo.app.arguments import VERSION, split_at_dashes
from dynemo.app.settings.modes import parse_mode
from dynemo.app.settings.option import DEVICES, GENERAL, POOL_TOPIC, Option
from dynemo.app.settings.options import OPTIONS
from dynemo.command_line.flags import HELP, Flag
from dynemo.command_line.help import flag_section, section
from dynemo.commands.table import COMMANDS
from dynemo.environments.registry import ENGINES

_USAGE = "usage: dynemo-run [in=INPUT] [out=OUTPUT] [MODEL] [flags] [-- engine options]"
_INPUTS = (
    ("text", "a chat in this terminal; the default on a terminal"),
    ("stdin", "one prompt from standard input; the default otherwise"),
    ("http", "a server with OpenAI's API"),
    ("batch:FILE", "a file of prompts, one JSON object a line"),
    ("dyn://NAME", "a worker of the pool NAME"),
    ("none", "a rank above 0 of an engine on several machines"),
)
_OUTPUTS = (
    *((name, entry.summary) for name, entry in ENGINES.items()),
    ("FILE.py", "an engine of your own"),
    ("dyn://NAME", "the workers of the pool NAME; `dyn` alone: the workers of every pool"),
)
_MODELS = (
    ("FILE.gguf", "a GGUF file"),
    ("FOLDER", "a checkout from Hugging Face"),
    ("ORG/REPO", "a Hub name; ORG/REPO:Q4_K_M chooses a file"),
    ("(none)", "the small demo model of this package"),
)
_EXAMPLES = (
    ("dynemo-run", "chat with the demo model"),
    ("dynemo-run Llama-3.2-1B-Instruct-Q4_K_M.gguf", "chat with your model"),
    ('echo "What is the capital of Peru?" | dynemo-run', "answer one prompt"),
    ("dynemo-run in=http MODEL --http-port 9000", "serve a model to OpenAI clients"),
    ("dynemo-run in=batch:prompts.jsonl MODEL", "answer a file of prompts"),
    ("dynemo-run in=http MODEL -- --threads 8", "give the engine an option of its own"),
    ("dynemo-run in=dyn://pool MODEL", "start a worker, as many as you like"),
    ("dynemo-run in=http out=dyn://pool", "start an ingress in front of the workers"),
)
_ALL = "all"
_MORE = """\
`dynemo-run in=dyn://NAME --help` lists the flags of that mode, `dynemo-run --help all` all flags.

Each setting is also a variable (DYNEMO_HTTP_PORT) and a key in the file of --config (http_port).
Flags win over variables, variables over the file. A flag that does not apply to a run is refused; a
variable or a key that does not apply is left out."""


def help_text(argv: Sequence[str]) -> str:
    """The text of `--help` beside these words. Raises UsageError for an unknown in= or out=."""
    own, _ = split_at_dashes(argv)
    sides = dict(word.split("=", 1) for word in own if word.startswith(("in=", "out=")))
    if _ALL in own:
        return _page(OPTIONS)
    usual = [option for option in OPTIONS if not option.is_rare]
    if not sides:
        return _page(option for option in usual if option.topic not in (DEVICES, POOL_TOPIC))
    mode = parse_mode(sides.get("in", ""), sides.get("out", ""))
    found = [option for option in usual if any(scope.has(mode) for scope in option.where)]
    intro = (
        f"The usual flags of {mode}; `dynemo-run --help all` has the others, too.\n"
        "`dynemo-run --help` explains the words and has examples."
    )
    return "\n\n".join([_USAGE, intro, *_topics(found)])


def _page(options: Iterable[Option]) -> str:
    commands = ((command.word, command.summary) for command in COMMANDS)
    parts = [
        _USAGE,
        "Serve a large language model: a chat, an HTTP server, a file of prompts, a pool.",
        section("in=, where requests come from", _INPUTS),
        section("out=, what answers them", _OUTPUTS),
        section("MODEL", _MODELS),
        *_topics(options),
        section("Examples", _EXAMPLES, column=52),
        section("Commands (dynemo-run COMMAND --help)", commands),
        _MORE,
    ]
    return "\n\n".join(parts)


def _topics(options: Iterable[Option]) -> Iterator[str]:
    by_topic: dict[str, list[Flag]] = {}
    for option in options:
        by_topic.setdefault(option.topic, []).append(option)
    by_topic.setdefault(GENERAL, []).extend((VERSION, HELP))
    return (flag_section(topic, flags) for topic, flags in by_topic.items())
