"""The settings of one run: each is a flag, a `DYNEMO_*` variable and a key in a TOML file.

The table here is the one place that lists them; `--help`, the variables, the file and the shell
completion are made from it.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dynemo.errors import UsageError
from dynemo.spelling import nearest


@dataclass(frozen=True)
class Option:
    name: str  #: of the field in `Config`; `--name-with-dashes` is the flag
    metavar: str
    help: str
    group: str
    kind: Callable[[str], Any] = str  #: of another text it raises ValueError(what it takes)
    modes: frozenset[str] | None = None  #: the inputs that it applies to; None: all
    choices: tuple[str, ...] = ()
    alias: str = ""  #: another variable that is read, where others know it by that name
    flags: tuple[str, ...] = ()  #: other spellings of the flag

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return "DYNEMO_" + self.name.upper()


def _whole(text: str, takes: str, least: int, most: float = math.inf) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError(takes) from None
    if not least <= number <= most:
        raise ValueError(takes)
    return number


def _port(text: str) -> int:
    return _whole(text, "a port from 0 to 65535", 0, 65535)


def _positive(text: str) -> int:
    return _whole(text, "a whole number from 1 up", 1)


def _count(text: str) -> int:
    return _whole(text, "a whole number from 0 up", 0)


def _seconds(text: str) -> float:
    takes = "a number of seconds"
    try:
        number = float(text)
    except ValueError:
        raise ValueError(takes) from None
    if not 0 <= number < 1e9:
        raise ValueError(takes)
    return number


def _host_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    takes = "PORT or HOST:PORT"
    if colon and not host:
        raise ValueError(takes)
    return host.strip("[]") or "127.0.0.1", _whole(port, takes, 0, 65535)


def _meeting(text: str) -> str:
    host, _, port = text.rpartition(":")
    takes = "HOST:PORT"
    _whole(port, takes, 1, 65535)
    if not host:
        raise ValueError(takes)
    return text


_HTTP = frozenset({"http"})
_BATCH = frozenset({"batch"})
_ASKING = frozenset({"text", "stdin", "batch"})
#: What `out=dyn://` or `in=dyn://` has, and nothing else.
NETWORK = "dyn://NAME"
ENGINE = "engine"
ROUTER_MODES = ("random", "round-robin", "least-loaded", "prefix")


def _discovery(text: str) -> str:
    if text not in ("etcd", "file") and not text.startswith("file:"):
        raise ValueError("etcd, file or file:DIR")
    return text


OPTIONS = (
    Option("model_path", "PATH", "the model, as MODEL", "model"),
    Option("model_name", "NAME", "the name it is served under (its file's or folder's)", "model"),
    Option(
        "model_config", "DIR", "a checkout to take tokenizer and chat template from", "model"
    ),
    Option(
        "context_length", "N",
        "tokens that one sequence may hold (the model's; llama_cpp: at most 8192)",
        "model", _positive,
    ),
    Option(
        "engine_python", "PATH", "the Python that has the engine, if you made one yourself",
        ENGINE, Path,
    ),
    Option(
        "extra_engine_args", "FILE.json", "arguments in the engine's own names, as a JSON object",
        ENGINE, Path,
    ),
    Option(
        "tensor_parallel_size", "N", "devices that the model is split over (1)", ENGINE, _positive
    ),
    Option(
        "num_nodes", "N", "machines that it is split over, each with its rank (1)",
        ENGINE, _positive,
    ),
    Option(
        "node_rank", "N", "this machine's: 0 takes the requests, the others have in=none (0)",
        ENGINE, _count,
    ),
    Option(
        "dist_init_addr", "HOST:PORT", "where the machines meet, on rank 0's; trtllm needs none",
        ENGINE, _meeting, flags=("--leader-addr",),
    ),
    Option("request_template", "FILE", "JSON defaults, merged under each request", "requests"),
    Option("system", "TEXT", "a system prompt", "requests", modes=_ASKING),
    Option("http_host", "HOST", "the address to listen on (127.0.0.1)", "in=http", modes=_HTTP),
    Option("http_port", "PORT", "the port; 0 takes a free one (8080)", "in=http", _port, _HTTP),
    Option(
        "grace", "SECONDS", "time for streams to finish on Ctrl-C or SIGTERM (5)", "in=http",
        _seconds, frozenset({"http", "dyn"}),
    ),
    Option("output", "FILE", "where answers go (beside the input)", "in=batch:FILE", Path, _BATCH),
    Option(
        "concurrency", "N", "requests at once (as many as the engine computes)", "in=batch:FILE",
        _positive, _BATCH,
    ),
    Option(
        "discovery", "WHERE", "etcd, file or file:DIR, on one host without servers (etcd)",
        NETWORK, _discovery,
    ),
    Option(
        "etcd", "HOSTS", "HOST:PORT of etcd, several with commas (127.0.0.1:2379)", NETWORK,
        alias="ETCD_ENDPOINTS",
    ),
    Option(
        "nats", "URLS", "where NATS is, several with commas (nats://127.0.0.1:4222)", NETWORK,
        alias="NATS_SERVER",
    ),
    Option("request_plane", "PLANE", "nats or tcp (nats)", NETWORK, choices=("nats", "tcp")),
    Option(
        "router_mode", "MODE", f"{', '.join(ROUTER_MODES)} (random)", NETWORK,
        choices=ROUTER_MODES,
    ),
    Option(
        "migration_limit", "N", "times that a stream may move to another worker (3)", NETWORK,
        _count,
    ),
    Option(
        "advertise", "HOST[:PORT]", "the address to be dialled at (all of this host's)", NETWORK
    ),
    Option(
        "tls", "DIR", "a folder with tls.crt, tls.key, ca.crt: TLS among workers and ingresses",
        NETWORK, Path,
    ),
    Option("wait", "SECONDS", "wait for servers that are not there yet (0)", NETWORK, _seconds),
    Option("lease_ttl", "SECONDS", "how long a silent worker is believed (10)", NETWORK, _seconds),
    Option(
        "status_port", "[HOST:]PORT", "a worker's /health, /live and /metrics (none)", NETWORK,
        _host_port, frozenset({"dyn"}),
    ),
    Option("log_format", "FORMAT", "text or json (text)", "general", choices=("text", "json")),
    Option("config", "FILE", "a TOML file with any of these settings", "general", Path),
)  # fmt: skip
_BY_NAME = {option.name: option for option in OPTIONS}
_PLACES = ("in", "out", "model")


@dataclass(frozen=True)
class Config:
    """What the user wants, all sources merged. None: not said."""

    input: str = ""
    out: str = ""
    model: str | None = None
    model_name: str | None = None
    model_config: str | None = None
    context_length: int | None = None
    engine_python: Path | None = None
    extra_engine_args: Path | None = None
    tensor_parallel_size: int = 1
    num_nodes: int = 1
    node_rank: int = 0
    dist_init_addr: str = ""
    request_template: str | None = None
    system: str | None = None
    http_host: str = "127.0.0.1"
    http_port: int = 8080
    grace: float = 5.0
    output: Path | None = None
    concurrency: int | None = None
    discovery: str = "etcd"
    etcd: str = "127.0.0.1:2379"
    nats: str = "nats://127.0.0.1:4222"
    request_plane: str | None = None
    router_mode: str = "random"
    migration_limit: int = 3
    advertise: str | None = None
    tls: Path | None = None
    wait: float = 0.0
    lease_ttl: float = 10.0
    status_port: tuple[str, int] | None = None
    log_format: str = "text"
    verbosity: int = 0
    engine_options: tuple[str, ...] = ()


def data_folder() -> Path:
    """Where this user's files of ours are: servers, engine environments."""
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "dynemo-run"


def build_config(flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Config:
    """Flags over variables over the file. `flags` holds only what was given; `in`, `out` and
    `model` are among its keys. Raises UsageError."""
    variables = _from_environment(environment)
    path = flags.get("config") or variables.get("config")
    file = _from_file(path) if path else {}
    merged = {**file, **variables, **flags}
    merged.pop("config", None)
    model_path = merged.pop("model_path", None)
    if model_path is not None and merged.get("model") not in (None, model_path):
        raise UsageError(
            f"MODEL is given twice: {merged['model']!r} and --model-path {model_path!r}; keep one."
        )
    merged["model"] = merged.get("model") or model_path
    merged["input"] = merged.pop("in", "")
    known = {field.name for field in fields(Config)}
    return Config(**{name: value for name, value in merged.items() if name in known})


def read(option: Option, text: str, source: str) -> Any:
    """One value, from whichever source. Raises UsageError that names the source."""
    if option.choices and text not in option.choices:
        raise UsageError(f"{source} takes {' or '.join(option.choices)}, not {text!r}.")
    try:
        return option.kind(text)
    except ValueError as takes:
        raise UsageError(f"{source} takes {takes}, not {text!r}.") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        place: environment[f"DYNEMO_{place.upper()}"]
        for place in _PLACES
        if environment.get(f"DYNEMO_{place.upper()}")
    }
    for option in OPTIONS:
        for variable in (option.variable, option.alias):
            if variable and (text := environment.get(variable)):
                found[option.name] = read(option, text, variable)
                break
    return found


def _from_file(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        data = tomllib.loads(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"The file of --config, {path}, cannot be read: {error.strerror}."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML file: {error}.") from None
    found: dict[str, Any] = {}
    for key, value in data.items():
        name = key.replace("-", "_")
        if isinstance(value, bool | list | dict):
            raise UsageError(f"{key} in {path} takes text or a number, not {value!r}.")
        if name in _PLACES:
            found[name] = str(value)
        elif name in _BY_NAME and name != "config":
            found[name] = read(_BY_NAME[name], str(value), f"{key} in {path}")
        else:
            raise UsageError(f"{path} has no setting {key!r}; {_nearest(name)}")
    return found


def _nearest(name: str) -> str:
    names = [*_PLACES, *_BY_NAME]
    near = nearest(name, names)
    return f"did you mean {near!r}?" if near else f"it may have {', '.join(names)}."
