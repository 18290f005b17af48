"""The composition root: decides what a run needs, starts its engine, and hands both to `run`.

Imports little at its top: the engine is started before what only the runner needs is imported.
"""

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from dynemo.app.arguments import VERSION, Invocation, parse, split_at_dashes
from dynemo.app.settings.modes import RunInput
from dynemo.app.settings.options import Config
from dynemo.command_line.read import asks_for_help
from dynemo.commands.table import COMMANDS
from dynemo.descriptors import raise_limit
from dynemo.environments.registry import find_entry
from dynemo.errors import DynemoError, UsageError
from dynemo.interrupt import interrupt_ends, interrupt_raises
from dynemo.spelling import quoted, visible

if TYPE_CHECKING:
    from dynemo.http.bound_server import BoundServer
    from dynemo.messages.ask import Ask


#: A full disk, a folder that is read-only, a limit of the system, ...
_OF_THE_SYSTEM = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
    | {errno.ENOTDIR, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit code. A mistake is one sentence on standard error."""
    _open_closed()
    _write_utf8()
    sys.excepthook = _print_traceback
    flags = [word for word in split_at_dashes(argv)[0] if word.startswith("-v")]
    is_loud = sum(word.count("v") for word in flags) >= 2
    try:
        return _dispatch(argv)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except DynemoError as error:
        if is_loud:
            raise
        print(visible(f"dynemo-run: {error}"), file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if is_loud:
            raise
        if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
            file = quoted(str(error.filename)) if error.filename else "A file"
            text = f"dynemo-run: {file} cannot be read or written: {error.strerror}."
            print(visible(text), file=sys.stderr)
            return 1
        bug = f"A bug in dynemo-run has ended it: {type(error).__name__}: {error}"
        print(
            visible(f"dynemo-run: {bug}. Run the command again with -vv to see where."),
            file=sys.stderr,
        )
        return 1


def _dispatch(argv: Sequence[str]) -> int:
    if argv and any(command.word == argv[0] for command in COMMANDS):
        from dynemo.commands.dispatch import run_command

        return run_command(argv)
    own, _ = split_at_dashes(argv)
    if asks_for_help(own):
        from dynemo.app.help import help_text

        print(visible(help_text(own)))
        return 0
    if VERSION.name in own:
        from dynemo import __version__

        print(visible(f"dynemo-run {__version__}"))
        return 0
    with interrupt_ends():
        return start(parse(argv))


def _open_closed() -> None:
    """Opens standard streams that the parent process has closed, so that no pipe or socket of ours
    takes their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (for the whole run)


def _write_utf8() -> None:
    """Writes UTF-8 in every locale, as answers are: a prompt comes out exactly, and no message
    fails because of a letter."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _print_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    import traceback

    print(visible("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr, end="")


def start(invocation: Invocation) -> int:
    """Runs until the input ends; returns the exit code. Raises DynemoError."""
    import logging

    from dynemo.log import set_up

    config, run_input = invocation.config, invocation.mode.input
    set_up(config.log_format, config.verbosity, is_server=run_input.kind in ("http", "dyn"))
    for source in invocation.unused:
        logging.getLogger("dynemo.settings").info("%s does not apply to this run.", source)
    descriptors = raise_limit()
    _check_input(run_input)
    defaults = _with_reasoning(_request_template(config.request_template), config)
    if invocation.mode.output.is_pool:
        return _start_ingress(config, run_input, defaults)
    return _start_engine(invocation, defaults, descriptors)


def _start_engine(invocation: Invocation, defaults: "Ask", descriptors: int) -> int:
    from msgspec.structs import replace

    from dynemo.app.engine import engine_spec
    from dynemo.environments.find import find_python
    from dynemo.serving.local.child import discard, spawn

    config, run_input = invocation.config, invocation.mode.input
    spec, files = engine_spec(config, invocation.mode)
    spec = replace(spec, descriptors=descriptors)
    python = find_python(find_entry(spec.engine), config.engine_python)
    server = _server(config, run_input)
    with interrupt_raises():  # it leaves no folder behind
        child = spawn(spec, python)
    if spec.parallel.rank > 0:
        from dynemo.app.run import run_follower

        return run_follower(spec, child)
    try:
        with interrupt_ends(partial(discard, child)):
            # While the engine loads in its process: what only the runner needs.
            from dynemo.app.run import Run, run

            card = files.card()
            text = _standard_input() if run_input.kind == "stdin" else ""
    except BaseException:
        discard(child)
        raise
    return run(Run(config, run_input, spec, python, defaults, card, child, text, server))


def _start_ingress(config: Config, run_input: RunInput, defaults: "Ask") -> int:
    server = _server(config, run_input)
    text = _standard_input() if run_input.kind == "stdin" else ""
    from dynemo.app.run import run_ingress

    return run_ingress(config, run_input, defaults, text, server)


def _check_input(run_input: RunInput) -> None:
    """Checks what the input needs, before an engine is loaded for it. Raises UsageError."""
    if run_input.kind == "text" and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("in=text is a chat and needs a terminal; use in=stdin for one prompt.")
    if run_input.kind == "batch" and not os.path.isfile(run_input.value):
        raise UsageError(
            f"There is no file {quoted(run_input.value)} for in=batch; give a file of JSON lines."
        )


def _request_template(path: str | None) -> "Ask":
    from dynemo.messages.ask import Ask

    if path is None:
        return Ask()
    from dynemo.api.openai.defaults import read_request_template

    return read_request_template(path)


def _with_reasoning(defaults: "Ask", config: Config) -> "Ask":
    from msgspec.structs import replace

    if config.reasoning is not None and defaults.reasoning is None:
        defaults = replace(defaults, reasoning=config.reasoning == "on")
    if config.reasoning_output == "raw" and defaults.splits_reasoning is None:
        defaults = replace(defaults, splits_reasoning=False)
    return defaults


def _standard_input() -> str:
    from dynemo.terminal.prompt import read_prompt

    return read_prompt(sys.stdin.buffer)


def _server(config: Config, run_input: RunInput) -> "BoundServer | None":
    """The server of in=http, or a worker's status port."""
    if run_input.kind not in ("http", "dyn"):
        return None
    if run_input.kind == "dyn" and config.status_port is None:
        return None
    from dynemo.app.http_server import open_server, open_status_server

    return (open_server if run_input.kind == "http" else open_status_server)(config)
