"""The port of discovery: a store of keys under leases, and the names of the keys.

`Store` is what an adapter implements: small, each call done or failed by its own deadline, no
memory of what was asked before. `Discovery` (in `discovery.py`) stands on any of them and adds
what lasts: one lease per process, registering again, watching across lost connections, blobs.

Keys; each part is percent-encoded, so that a `/` in a model's name stays in its part:

    /dynemo/{namespace}/instances/{component}/{endpoint}/{instance}    msgpack of messages.Record
    /dynemo/{namespace}/models/{model}/identity/{claimant}             see `Discovery.claim`
    /dynemo/blobs/{sha256}/{n}                                         chunk n, eight digits
"""

from collections.abc import AsyncGenerator
from typing import NamedTuple, Protocol
from urllib.parse import quote

from dynemo.errors import Unavailable
from dynemo.planes.names import EndpointName

ROOT = "/dynemo/"
BLOBS = f"{ROOT}blobs/"


class Change(NamedTuple):
    key: str
    value: bytes | None  #: None: gone


class LeaseLost(Exception):
    """The lease that a call named has run out, or was never there. Stays inside this folder."""


class Refused(Unavailable):
    """The store is there and turns us away (credentials, permissions)."""


class Store(Protocol):
    """Keys and values, each under a lease. Every call ends within seconds, and raises Unavailable
    when the store is away. May be called at once from many tasks."""

    @property
    def name(self) -> str:
        """As a sentence calls it: `etcd at 127.0.0.1:2379`."""
        ...

    async def grant(self, ttl: int) -> int:
        """A new lease of `ttl` seconds."""
        ...

    async def share(self, lease: int, ttl: int) -> bool:
        """Makes a lease of a number that several processes know and each keeps alive; it has no
        owner. False when it is there already; then it is kept alive."""
        ...

    async def keep(self, lease: int) -> bool:
        """Starts its time anew. False when it is gone."""
        ...

    async def revoke(self, lease: int) -> None:
        """Ends it, and all keys under it. Nothing happens when it is gone."""
        ...

    async def put(self, key: str, value: bytes, lease: int) -> None:
        """Raises LeaseLost."""
        ...

    async def add(self, key: str, value: bytes, lease: int) -> None:
        """Like `put`, but leaves a key that is there as it is. Raises LeaseLost."""
        ...

    async def claim(self, prefix: str, key: str, value: bytes, lease: int) -> bytes | None:
        """Puts `key`, which lies under `prefix`, if every other key there has this value: in one
        step, whoever else tries. Returns None then, else another value. Raises LeaseLost."""
        ...

    async def delete(self, key: str, lease: int) -> None:
        """Nothing happens when it is not there, or under another lease."""
        ...

    async def get(self, key: str) -> bytes | None: ...

    async def keys(self, prefix: str) -> list[str]:
        """All keys under a prefix, in order."""
        ...

    def follow(self, prefix: str) -> AsyncGenerator[dict[str, bytes] | list[Change], None]:
        """First all there is under `prefix` (a dict), then every change to it, without a gap
        (lists). Raises Unavailable when it can no longer promise that."""
        ...


def instance_key(address: EndpointName, instance: str) -> str:
    return f"{instances_prefix(address)}{_part(instance)}"


def instances_prefix(address: EndpointName) -> str:
    """Where the instances of a pool lie; of a whole namespace, where `component` is empty."""
    prefix = f"{ROOT}{_part(address.namespace)}/instances/"
    if not address.component:
        return prefix
    return f"{prefix}{_part(address.component)}/{_part(address.endpoint)}/"


def identity_key(namespace: str, model: str) -> str:
    """For `Discovery.claim`: whose value is the identity that a model's name is taken by."""
    return f"{ROOT}{_part(namespace)}/models/{_part(model)}/identity"


def _part(text: str) -> str:
    return quote(text, safe="")
