# ruff: noqa: RUF009 (`setting` makes a dataclass field, which is immutable)
"""The table of settings: each field of `Config` is one row.

A row holds the name, the default, the parser, the help and the runs that the setting applies to.
The flags, the `DYNEMO_*` variables, the keys of the file, the help and the shell completion come
from it. A row is a field, so no flag can be parsed without being stored. A row cannot be made
without a scope. `tests/app/test_settings.py` starts every mode, and fails if one accepts a setting
that it does not read.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path

from dynemo.app.settings import values
from dynemo.app.settings.option import (
    BATCH_TOPIC,
    DEVICES,
    ENGINE_TOPIC,
    GENERAL,
    MODEL,
    POOL_TOPIC,
    REQUESTS_TOPIC,
    SERVERS,
    Option,
    setting,
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
    Need,
)
from dynemo.planes.discovery.backends import BACKENDS, forms, local_names, split_backend
from dynemo.router.modes import MODES


def _uses_etcd(config: "Config") -> bool:
    return config.discovery == "etcd"


def _uses_nats(config: "Config") -> bool:
    return config.plane == "nats"


def _uses_tcp(config: "Config") -> bool:
    return config.plane == "tcp"


def _has_servers(config: "Config") -> bool:
    return _uses_etcd(config) or _uses_nats(config)


def _has_status_port(config: "Config") -> bool:
    return config.status_port is not None


def _has_tls_cert(config: "Config") -> bool:
    return config.tls_cert_path is not None


def _has_nodes(config: "Config") -> bool:
    return config.num_nodes > 1


_ETCD = Need("--discovery etcd", _uses_etcd)
_NATS = Need("--request-plane nats", _uses_nats)
_TCP = Need("--request-plane tcp", _uses_tcp)
_SERVERS = Need("--discovery etcd or --request-plane nats", _has_servers)
_STATUS_PORT = Need("--status-port", _has_status_port)
_TLS_CERT = Need("--tls-cert-path", _has_tls_cert)
_NODES = Need("--num-nodes 2 or more", _has_nodes)
_POOL = (WORKER, INGRESS)


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
    tool_format: str = setting("", str, Option(
        metavar="NAME", topic=MODEL, where=(LEADER,), is_rare=True,
        help="How the model writes tool calls (`docs/formats.md`).",
        shown="read from its chat template",
    ))
    reasoning_format: str = setting("", str, Option(
        metavar="NAME", topic=MODEL, where=(LEADER,), is_rare=True,
        help="How the model marks its reasoning (`docs/formats.md`).",
        shown="read from its chat template",
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
        metavar="HOST:PORT", topic=DEVICES, where=(WITHOUT_LAUNCHER.with_need(_NODES),),
        aliases=("--leader-addr",),
        help="Where the machines meet: an address of rank 0's machine.",
    ))
    request_template: str | None = setting(None, str, Option(
        metavar="FILE", topic=REQUESTS_TOPIC, where=(REQUESTS,),
        help="A JSON object with defaults for the fields of each request.",
    ))
    reasoning: str | None = setting(None, str, Option(
        metavar="ON|OFF", topic=REQUESTS_TOPIC, where=(REQUESTS,), is_rare=True,
        choices=("on", "off"), shown="the model's",
        help="Whether a model that can reason does so before it answers: on or off.",
    ))
    reasoning_output: str = setting("split", str, Option(
        metavar="SPLIT|RAW", topic=REQUESTS_TOPIC, where=(REQUESTS,), is_rare=True,
        choices=("split", "raw"),
        help="Give the reasoning apart from the answer (split), or as the model writes it (raw).",
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
        metavar="KEY", topic=SERVERS, where=(SERVER, WORKER.with_need(_STATUS_PORT)), is_list=True,
        help="A key that every client must send. Others see this flag in `ps`: better use the "
        "variable or the file.",
    ))
    api_key_file: Path | None = setting(None, values.path, Option(
        metavar="FILE", topic=SERVERS, where=(SERVER, WORKER.with_need(_STATUS_PORT)),
        help="A file with a key on each line, and what it may do (`docs/http.md`).",
    ))
    tls_cert_path: Path | None = setting(None, values.path, Option(
        metavar="PATH", topic=SERVERS, is_rare=True, where=(SERVER,),
        help="Serve HTTPS with this certificate (PEM, with its chain).", shown="HTTP",
    ))
    tls_key_path: Path | None = setting(None, values.path, Option(
        metavar="PATH", topic=SERVERS, is_rare=True, where=(SERVER.with_need(_TLS_CERT),),
        help="The certificate's private key (PEM, without a password).",
        shown="in the certificate's file",
    ))
    tls_client_ca_path: Path | None = setting(None, values.path, Option(
        metavar="PATH", topic=SERVERS, is_rare=True, where=(SERVER.with_need(_TLS_CERT),),
        help="Require client certificates that this authority (PEM) has signed.",
    ))
    metrics_port: tuple[str, int] | None = setting(None, values.host_port, Option(
        metavar="[HOST:]PORT", topic=SERVERS, is_rare=True, where=(SERVER,),
        help="Serve /metrics there, without a key, and not at the other port.",
    ))
    allowed_host: tuple[str, ...] = setting((), values.several, Option(
        metavar="NAME", topic=SERVERS, where=(SERVER, WORKER.with_need(_STATUS_PORT)), is_list=True,
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
        metavar="WHERE", topic=POOL_TOPIC, where=(*_POOL, PS),
        help=f"How processes find each other: {forms()}. On one host, {local_names()} needs no "
        "server.",
    ))
    etcd: str = setting("127.0.0.1:2379", str, Option(
        metavar="HOSTS", topic=POOL_TOPIC,
        where=tuple(scope.with_need(_ETCD) for scope in (*_POOL, PS)),
        variables=("ETCD_ENDPOINTS",),
        help="HOST:PORT of etcd; separate several with commas.",
    ))
    nats: str = setting("nats://127.0.0.1:4222", str, Option(
        metavar="URLS", topic=POOL_TOPIC,
        where=(*(scope.with_need(_NATS) for scope in _POOL), PS),
        variables=("NATS_SERVER",),
        help="The address of NATS; separate several with commas.",
    ))
    request_plane: str | None = setting(None, str, Option(
        metavar="PLANE", topic=POOL_TOPIC, where=_POOL, choices=("nats", "tcp"),
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
        where=(WORKER.with_need(_TCP), INGRESS.with_need(_NATS)),
        help="The address that the other side dials: the ingress's, with --request-plane tcp the "
        "worker's.",
        shown="every address of this host",
    ))
    tls: Path | None = setting(None, values.path, Option(
        metavar="DIR", topic=POOL_TOPIC, where=(*_POOL, PS),
        help="Use TLS between workers and ingresses, with tls.crt, tls.key and ca.crt in DIR.",
        shown="no TLS",
    ))
    wait: float = setting(0.0, values.seconds, Option(
        metavar="SECONDS", topic=POOL_TOPIC,
        where=tuple(scope.with_need(_SERVERS) for scope in (*_POOL, PS)),
        help="How long to wait for etcd and NATS if they do not answer yet.",
    ))
    lease_ttl: float = setting(10.0, values.seconds, Option(
        metavar="SECONDS", topic=POOL_TOPIC, where=_POOL,
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
