"""The processes of a chaos run, and the faults that they suffer.

Workers run in network namespaces of their own if this system allows it. A cut then loses packets
without closing a connection.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread

from stress.plan import INGRESSES, WORKERS, Fault
from support.command import COMMAND, children
from support.dyn_network import Host, network
from support.etcd_server import EtcdServer
from support.free_ports import free_port
from support.nats_process import NatsProcess
from support.waiting import wait_until

#: Each process of the run has this variable, so that a process that is left can be found.
MARK = "STRESS_RUN"
_DELAY_MS = 40
_STARTS = 40.0  #: seconds for a process to start; the machine is busy
_ENDS = 60.0

Heal = Callable[[], None]


class Member:
    """One `dynemo-run` process that can be started again. Its log goes to `log`."""

    def __init__(self, words: Sequence[str], log: Path, inside: Sequence[str] = ()) -> None:
        self._words = [*inside, *COMMAND, *words]
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._words, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Starts it again once it has ended after SIGTERM. A second signal would end the grace."""
        assert self._process is not None
        self._process.wait(_ENDS)
        self.start()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(_ENDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def hosts(self) -> list[int]:
        return children(self.pid)


class World:
    """Made by `world`."""

    def __init__(
        self, stack: ExitStack, flags: Sequence[str], etcd: EtcdServer, nats: NatsProcess
    ) -> None:
        self.etcd, self.nats = etcd, nats
        self.places: list[Host] = []  #: of the workers, if they can be cut off
        self.workers: list[Member] = []
        self.ingresses: list[Member] = []
        self.urls: list[str] = []  #: of the ingresses
        self.etcd_address = flags[flags.index("--etcd") + 1]
        self._stack = stack
        self._flags = flags

    def start(self, logs: Path, router: str) -> None:
        for number in range(WORKERS):
            inside = self.places[number].inside if self.places else ()
            words = ["in=dyn://chaos", "out=echo", "--grace", "0.5", *self._flags]
            self._add(self.workers, Member(words, logs / f"worker-{number}.log", inside))
        for number in range(INGRESSES):
            port = free_port()
            words = ["in=http", "out=dyn://chaos", "-v", "--http-port", f"{port}", *self._flags]
            words += ["--router-mode", router, "--grace", "40"]
            self.urls.append(f"http://127.0.0.1:{port}")
            self._add(self.ingresses, Member(words, logs / f"ingress-{number}.log"))
        for member in self.workers:
            wait_until(lambda member=member: "· engine" in member.log.read_text(), _STARTS)

    def _add(self, members: list[Member], member: Member) -> None:
        members.append(member)
        self._stack.callback(member.close)
        member.start()

    def stop(self) -> None:
        """Ends every `dynemo-run` at once: one after the other would take longer."""
        enders = [Thread(target=each.close) for each in (*self.ingresses, *self.workers)]
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join()

    def begin(self, fault: Fault) -> Heal:
        """Begins a fault. Returns the function that ends it."""
        verb, part = fault.kind.split()
        match part:
            case "etcd":
                self.etcd.kill()
                if verb == "wipe":
                    self.etcd.forget()
                return self._start_etcd
            case "nats" if verb == "kill":
                self.nats.stop()
                return self.nats.start
            case "nats":
                return _freeze(self.nats.send)
            case "host":
                hosts = self.workers[fault.target].hosts()
                number = signal.SIGKILL if verb == "kill" else signal.SIGSTOP
                _signal_all(hosts, number)
                return lambda: _signal_all(hosts, signal.SIGCONT)
            case _:
                members = self.workers if part == "worker" else self.ingresses
                return self._begin_member(verb, members[fault.target], fault.target)

    def _begin_member(self, verb: str, member: Member, number: int) -> Heal:
        match verb:
            case "kill":
                member.kill()
                return member.start
            case "stop":
                member.send(signal.SIGTERM)
                return member.restart
            case "freeze":
                return _freeze(member.send)
            case _:
                self.places[number].cut()
                return self.places[number].heal

    def _start_etcd(self) -> None:
        self.etcd.start()
        self.etcd.wait()


def _freeze(send: Callable[[int], None]) -> Heal:
    send(signal.SIGSTOP)
    return lambda: send(signal.SIGCONT)


def _signal_all(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # it has died, or the worker has killed it
            os.kill(pid, number)


def can_cut() -> bool:
    """Whether this process may make network namespaces."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    name = f"dytry{os.getpid():x}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode == 0:
        subprocess.run(["ip", "netns", "del", name], check=True)
    return made.returncode == 0


@contextmanager
def world(*, is_cuttable: bool) -> Iterator[World]:
    """The servers run; `World.start` starts the rest. Everything has ended afterwards."""
    os.environ["DYNEMO_TOKEN_ECHO_DELAY_MS"] = str(_DELAY_MS)
    with ExitStack() as stack:
        if is_cuttable:
            net = stack.enter_context(network())
            it = World(stack, net.flags, net.etcd, net.nats)
            it.places = [net.host() for _ in range(WORKERS)]
        else:
            etcd = EtcdServer()
            stack.callback(etcd.close)
            etcd.start()
            nats = NatsProcess()
            stack.callback(nats.stop)
            etcd.wait()
            flags = ["--etcd", etcd.address, "--nats", nats.url, "--lease-ttl", "5"]
            it = World(stack, flags, etcd, nats)
        yield it
