"""The settings that others need, and the scope of a pool."""

from typing import Any

from dynemo.app.settings.scopes import INGRESS, WORKER, Need


def _uses_etcd(config: Any) -> bool:
    return bool(config.discovery == "etcd")


def _uses_nats(config: Any) -> bool:
    return bool(config.plane == "nats")


def _uses_tcp(config: Any) -> bool:
    return bool(config.plane == "tcp")


def _has_servers(config: Any) -> bool:
    return _uses_etcd(config) or _uses_nats(config)


def _has_status_port(config: Any) -> bool:
    return bool(config.status_port is not None)


def _has_tls_cert(config: Any) -> bool:
    return bool(config.tls_cert_path is not None)


def _has_nodes(config: Any) -> bool:
    return bool(config.num_nodes > 1)


ETCD = Need("--discovery etcd", _uses_etcd)
NATS = Need("--request-plane nats", _uses_nats)
TCP = Need("--request-plane tcp", _uses_tcp)
ETCD_OR_NATS = Need("--discovery etcd or --request-plane nats", _has_servers)
STATUS_PORT = Need("--status-port", _has_status_port)
TLS_CERT = Need("--tls-cert-path", _has_tls_cert)
NODES = Need("--num-nodes 2 or more", _has_nodes)
POOL = (WORKER, INGRESS)
