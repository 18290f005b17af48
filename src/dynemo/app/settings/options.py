# ruff: noqa: RUF009 (`setting` makes a dataclass field, which is immutable)
"""The table of settings: each field of `Config` is one row.

A row holds the name, the default, the parser, the help and the runs that the setting applies to.
The flags, the `DYNEMO_*` variables, the keys of the file, the help and the shell completion come
from it. A row is a field, so no flag can be parsed without being stored. A row cannot be made
without a scope. `tests/app/test_settings.py` starts every mode, and fails if one accepts a setting
that it does not read.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TypeVar

from dynemo.app.settings import values
from dynemo.app.settings.needs import (
    ETCD,
    ETCD_OR_NATS,
    NATS,
    NODES,
    POOL,
    STATUS_PORT,
    TCP,
    TLS_CERT,
)
from dynemo.app.settings.scopes import (
    BATCH,
    ENGINE,
    EVERY_RUN,
    INGRESS,
    LEADER,
    PROMPTS,
    PS,
    RENDER,
    REQUESTS,
    SERVER,
    SEVERAL_NODES,
    TENSOR_PARALLEL,
    WITHOUT_LAUNCHER,
    WORKER,
    Scope,
)
from dynemo.command_line.flags import Flag
from dynemo.planes.discovery.backends import BACKENDS, forms, local_names, split_backend
from dynemo.router.modes import MODES

T = TypeVar("T")

#: The topics of the help, in order.
MODEL = "Model"
ENGINE_TOPIC = "Engine"
DEVICES = "Several devices or machines"
REQUESTS_TOPIC = "Requests"
SERVERS = "Servers (in=http, in=dyn://NAME)"
BATCH_TOPIC = "Batch (in=batch:FILE)"
POOL_TOPIC = "Pool of workers (in=dyn://NAME, out=dyn://NAME)"
GENERAL = "General"


@dataclass(frozen=True, kw_only=True)
class Option(Flag):
    """One row of the table, without its default, which is the field's."""

    name: str = ""  #: the flag; empty: made from the field
    field: str = ""
    topic: str
    where: tuple[Scope, ...]  #: any of them
    shown: str = ""  #: what the help says of the default; empty: the default itself
    is_rare: bool = False  #: only `--help all` shows it
    variables: tuple[str, ...] = ()  #: others that are read, where they are known by these names

    def __post_init__(self) -> None:
        if not self.where:
            raise ValueError("a setting applies somewhere")

    @property
    def key(self) -> str:
        return self.field

    @property
    def keys(self) -> tuple[str, ...]:
        """Its names in a file, and behind `DYNEMO_` in a variable."""
        spelled = (name[2:].replace("-", "_") for name in self.spellings if name.startswith("--"))
        return tuple(dict.fromkeys((self.field, *spelled)))


def setting(default: T, parse: Callable[[str], T], option: Option) -> T:
    """A field of `Config` from its row."""
    made = replace(option, parse=parse)
    return field(default=default, metadata={"option": made})


# fmt: off
@dataclass(frozen=True)
class Config:
    """The settings of one run. None: nobody has set it, and what uses it decides."""

    input: str = ""  #: `in=`
    out: str = ""  #: `out=`
    engine_options: tuple[str, ...] = ()  #: the words after `--`
    model: str | None = setting(None, str, Option(
        name="--model-path", metavar="PATH", topic=MODEL, where=(ENGINE,),
        help="The model; the same as the word MODEL.", shown="the demo model",
    ))
    model_name: str | None = setting(None, str, Option(
        metavar="NAME", topic=MODEL, where=(LEADER,),
        help="The name that clients ask for.", shown="the name of its file or folder",
    ))
    model_config: str | None = setting(None, str, Option(
        metavar="DIR", topic=MODEL, where=(ENGINE,),
        help="Take the tokenizer and the chat template from this checkout.", shown="the model's",
    ))
    context_length: int | None = setting(None, values.positive, Option(
        metavar="N", topic=MODEL, where=(ENGINE,),
        help="Tokens that one sequence may hold.",
        shown="the model's; with llama_cpp at most 8192",
    ))
    engine_python: Path | None = setting(None, values.path, Option(
        metavar="PATH", topic=ENGINE_TOPIC, where=(ENGINE,),
        help="A Python that has the engine, in an environment that you made yourself.",
        shown="found",
    ))
    extra_engine_args: Path | None = setting(None, values.path, Option(
        metavar="FILE", topic=ENGINE_TOPIC, where=(ENGINE,),
        help="A JSON object with the engine's own options; the same as words after `--`.",
    ))
    stall_timeout: float = setting(30.0, values.seconds, Option(
        metavar="SECONDS", topic=ENGINE_TOPIC, where=(LEADER,),
        help="Restart the engine if it has work and makes no progress for so long; 0 never does. "
        "A long prompt gets more time.",
    ))
    tensor_parallel_size: int = setting(1, values.positive, Option(
        metavar="N", topic=DEVICES, where=(TENSOR_PARALLEL,),
        help="Devices that the model is split over, on all machines together.",
    ))
    num_nodes: int = setting(1, values.positive, Option(
        metavar="N", topic=DEVICES, where=(SEVERAL_NODES,),
        help="Machines that the model is split over; each runs one rank.",
    ))
    node_rank: int = setting(0, values.count, Option(
        metavar="N", topic=DEVICES, where=(SEVERAL_NODES,),
        help="The rank of this machine. Rank 0 takes the requests; the others have in=none.",
    ))
    dist_init_addr: str = setting("", values.meeting_point, Option(
        metavar="HOST:PORT", topic=DEVICES, where=(WITHOUT_LAUNCHER.with_need(NODES),),
        aliases=("--leader-addr",),
        help="Where the machines meet: an address of rank 0's machine.",
    ))
    request_template: str | None = setting(None, str, Option(
        metavar="FILE", topic=REQUESTS_TOPIC, where=(REQUESTS,),
        help="A JSON object with defaults for the fields of each request.",
    ))
    system: str | None = setting(None, str, Option(
        metavar="TEXT", topic=REQUESTS_TOPIC, where=(PROMPTS,),
        help="A system prompt for each conversation.",
    ))
    special_tokens_in_content: str = setting("text", str, Option(
        metavar="HOW", topic=REQUESTS_TOPIC, is_rare=True, where=(REQUESTS, RENDER),
        choices=("text", "parse"),
        help="How to read the text of a control token in a message: text or parse. `parse` makes "
        "it that token.",
    ))
    http_host: str = setting("127.0.0.1", str, Option(
        metavar="HOST", topic=SERVERS, where=(SERVER,), help="The address to listen on.",
    ))
    http_port: int = setting(8080, values.port, Option(
        metavar="PORT", topic=SERVERS, where=(SERVER,),
        help="The port to listen on; 0 picks a free one.",
    ))
    api_key: tuple[str, ...] = setting((), values.several, Option(
        metavar="KEY", topic=SERVERS, where=(SERVER, WORKER.with_need(STATUS_PORT)), is_list=True,
        help="A key that every client must send. Others see this flag in `ps`: better use the "
        "variable or the file.",
    ))
    api_key_file: Path | None = setting(None, values.path, Option(
        metavar="FILE", topic=SERVERS, where=(SERVER, WORKER.with_need(STATUS_PORT)),
        help="A file with a key on each line, and what it may do (`docs/http.md`).",
    ))
    tls_cert_path: Path | None = setting(None, values.path, Option(
        metavar="PATH", topic=SERVERS, is_rare=True, where=(SERVER,),
        help="Serve HTTPS with this certificate (PEM, with its chain).", shown="HTTP",
    ))
    tls_key_path: Path | None = setting(None, values.path, Option(
        metavar="PATH", topic=SERVERS, is_rare=True, where=(SERVER.with_need(TLS_CERT),),
        help="The certificate's private key (PEM, without a password).",
        shown="in the certificate's file",
    ))
    tls_client_ca_path: Path | None = setting(None, values.path, Option(
        metavar="PATH", topic=SERVERS, is_rare=True, where=(SERVER.with_need(TLS_CERT),),
        help="Require client certificates that this authority (PEM) has signed.",
    ))
    metrics_port: tuple[str, int] | None = setting(None, values.host_port, Option(
        metavar="[HOST:]PORT", topic=SERVERS, is_rare=True, where=(SERVER,),
        help="Serve /metrics there, without a key, and not at the other port.",
    ))
    allowed_host: tuple[str, ...] = setting((), values.several, Option(
        metavar="NAME", topic=SERVERS, where=(SERVER, WORKER.with_need(STATUS_PORT)), is_list=True,
        help="A host name by which clients may call the server; `*`: any.",
        shown="loopback names and its addresses",
    ))
    cors_origin: tuple[str, ...] = setting((), values.several, Option(
        metavar="ORIGIN", topic=SERVERS, is_rare=True, where=(SERVER,), is_list=True,
        help="A site whose pages may send requests, or `app://` and the like; `*`: any.",
        shown="sites on loopback",
    ))
    max_queue: int | None = setting(None, values.count, Option(
        metavar="N", topic=SERVERS, where=(SERVER,),
        help="Requests that may wait for each model; more get a 429.",
        shown="half as many as the engines compute at once; at least 8 with these",
    ))
    grace: float = setting(5.0, values.seconds, Option(
        metavar="SECONDS", topic=SERVERS, where=(SERVER, WORKER),
        help="How long streams may finish after Ctrl-C, SIGTERM or SIGHUP.",
    ))
    replace: int = setting(0, values.count, Option(
        topic=POOL_TOPIC, where=(WORKER,), shown="refuse that", is_rare=True,
        help="Register beside workers that serve this name with another card, and take over.",
    ))
    weight: float = setting(1.0, values.share, Option(
        metavar="SHARE", topic=POOL_TOPIC, where=(WORKER,), is_rare=True,
        help="The share of new requests for this card, 0 to 1; workers of older ones get the rest.",
    ))
    status_port: tuple[str, int] | None = setting(None, values.host_port, Option(
        metavar="[HOST:]PORT", topic=SERVERS, where=(WORKER,),
        help="Serve the worker's own /health, /live and /metrics there.",
    ))
    output: Path | None = setting(None, values.path, Option(
        metavar="FILE", topic=BATCH_TOPIC, where=(BATCH,),
        help="The file that the answers are written to.", shown="beside the input",
    ))
    concurrency: int | None = setting(None, values.positive, Option(
        metavar="N", topic=BATCH_TOPIC, where=(BATCH,),
        help="Requests that run at once.", shown="as many as the engine computes",
    ))
    discovery: str = setting("etcd", values.discovery, Option(
        metavar="WHERE", topic=POOL_TOPIC, where=(*POOL, PS),
        help=f"How processes find each other: {forms()}. On one host, {local_names()} needs no "
        "server.",
    ))
    etcd: str = setting("127.0.0.1:2379", str, Option(
        metavar="HOSTS", topic=POOL_TOPIC,
        where=tuple(scope.with_need(ETCD) for scope in (*POOL, PS)),
        variables=("ETCD_ENDPOINTS",),
        help="HOST:PORT of etcd; separate several with commas.",
    ))
    nats: str = setting("nats://127.0.0.1:4222", str, Option(
        metavar="URLS", topic=POOL_TOPIC,
        where=(*(scope.with_need(NATS) for scope in POOL), PS),
        variables=("NATS_SERVER",),
        help="The address of NATS; separate several with commas.",
    ))
    request_plane: str | None = setting(None, str, Option(
        metavar="PLANE", topic=POOL_TOPIC, where=POOL, choices=("nats", "tcp"),
        help="How requests travel: nats or tcp.",
        shown=f"nats; tcp with --discovery {local_names()}",
    ))
    router_mode: str = setting("random", str, Option(
        metavar="MODE", topic=POOL_TOPIC, where=(INGRESS,), choices=tuple(MODES),
        help=f"How an ingress chooses a worker: {', '.join(MODES)}.",
    ))
    migration_limit: int = setting(3, values.count, Option(
        metavar="N", topic=POOL_TOPIC, where=(INGRESS,),
        help="How often in a row a stream may move to another worker when its own is lost.",
    ))
    first_token_timeout: float = setting(0.0, values.seconds, Option(
        metavar="SECONDS", topic=POOL_TOPIC, where=(INGRESS,),
        help="Move a stream to another worker if its first token takes longer; 0 never does.",
    ))
    token_timeout: float = setting(0.0, values.seconds, Option(
        metavar="SECONDS", topic=POOL_TOPIC, where=(INGRESS,),
        help="Move a stream to another worker if any next token takes longer; 0 never does.",
    ))
    advertise: str | None = setting(None, str, Option(
        metavar="HOST[:PORT]", topic=POOL_TOPIC,
        where=(WORKER.with_need(TCP), INGRESS.with_need(NATS)),
        help="The address that the other side dials: the ingress's, with --request-plane tcp the "
        "worker's.",
        shown="every address of this host",
    ))
    tls: Path | None = setting(None, values.path, Option(
        metavar="DIR", topic=POOL_TOPIC, where=(*POOL, PS),
        help="Use TLS between workers and ingresses, with tls.crt, tls.key and ca.crt in DIR.",
        shown="no TLS",
    ))
    wait: float = setting(0.0, values.seconds, Option(
        metavar="SECONDS", topic=POOL_TOPIC,
        where=tuple(scope.with_need(ETCD_OR_NATS) for scope in (*POOL, PS)),
        help="How long to wait for etcd and NATS if they do not answer yet.",
    ))
    lease_ttl: float = setting(10.0, values.seconds, Option(
        metavar="SECONDS", topic=POOL_TOPIC, where=POOL,
        is_rare=True,
        help="How long a worker that has gone silent stays registered.",
    ))
    log_format: str = setting("text", str, Option(
        metavar="FORMAT", topic=GENERAL, where=(EVERY_RUN,), choices=("text", "json"),
        help="The form of log lines: text or json.",
    ))
    config: Path | None = setting(None, values.path, Option(
        metavar="FILE", topic=GENERAL, where=(EVERY_RUN, PS),
        help="A TOML file with any of these settings.",
    ))
    verbosity: int = setting(0, values.count, Option(
        name="-v", topic=GENERAL, where=(EVERY_RUN,), shown="warnings only",
        help="Log more; -vv logs everything.",
    ))
    # fmt: on

    @property
    def plane(self) -> str:
        """How requests travel. Without etcd, nobody is expected to have NATS."""
        return self.request_plane or ("tcp" if self.is_local else "nats")

    @property
    def is_local(self) -> bool:
        """Whether all processes of the pool are on this host."""
        name, _ = split_backend(self.discovery)
        return BACKENDS[name].is_local


def _options() -> tuple[Option, ...]:
    found = []
    for row in fields(Config):
        if option := row.metadata.get("option"):
            name = option.name or f"--{row.name.replace('_', '-')}"
            value = f"{row.default:g}" if isinstance(row.default, float) else row.default
            shown = option.shown or value
            default = "" if shown in (None, "", ()) else f" (default: {shown})"
            described = f"{option.help.removesuffix('.')}{default}."
            found.append(replace(option, name=name, field=row.name, help=described))
    return tuple(found)


OPTIONS = _options()
