"""The port of discovery: a store of keys under leases, and the names of the keys.

An adapter implements `Store`: it is small, each call ends by its own deadline, and it keeps no
state between calls. `Discovery` (in `discovery.py`) works on any store and adds the state: one
lease per process, renewed registrations, watches across lost connections, blobs.

Keys; each part is percent-encoded, so that a `/` in a model's name stays in its part:

    /dynemo/{namespace}/instances/{component}/{endpoint}/{instance}    msgpack of InstanceRecord
    /dynemo/{namespace}/models/{pool and model}/identity/{claimant}    see `Discovery.claim`
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
    value: bytes | None  #: None: the key was deleted


class LeaseLost(Exception):
    """The lease has expired, or never existed. Stays inside this folder."""


class Refused(Unavailable):
    """The store answers and refuses us (credentials, permissions)."""


class Store(Protocol):
    """Keys and values, each under a lease. Every call ends within seconds, and raises Unavailable
    if the store does not answer. Many tasks may call it at once."""

    @property
    def name(self) -> str:
        """Its name in a sentence: `etcd at 127.0.0.1:2379`."""
        ...

    async def grant(self, ttl: int) -> int:
        """A new lease of `ttl` seconds."""
        ...

    async def share(self, lease: int, ttl: int) -> bool:
        """Makes a lease with a number that several processes know. It has no owner: each of them
        keeps it alive. False if it exists already; this call then keeps it alive."""
        ...

    async def keep(self, lease: int) -> bool:
        """Renews it for its whole time. False if it has expired."""
        ...

    async def revoke(self, lease: int) -> None:
        """Ends it and deletes all keys under it. Does nothing if it has expired."""
        ...

    async def put(self, key: str, value: bytes, lease: int) -> None:
        """Raises LeaseLost."""
        ...

    async def add(self, key: str, value: bytes, lease: int) -> None:
        """Like `put`, but keeps the value of a key that exists. Raises LeaseLost."""
        ...

    async def claim(self, prefix: str, key: str, value: bytes, lease: int) -> bytes | None:
        """Puts `key`, which lies under `prefix`, if every other key there has this value: in one
        atomic step. Returns None if it did, else another key's value. Raises LeaseLost."""
        ...

    async def delete(self, key: str, lease: int) -> None:
        """Does nothing if the key does not exist, or is under another lease."""
        ...

    async def get(self, key: str) -> bytes | None: ...

    async def keys(self, prefix: str) -> list[str]:
        """All keys under a prefix, in order."""
        ...

    def follow(self, prefix: str) -> AsyncGenerator[dict[str, bytes] | list[Change], None]:
        """First everything under `prefix` (a dict), then every change to it, without a gap
        (lists). Raises Unavailable when it can no longer guarantee that."""
        ...


def instance_key(address: EndpointName, instance: str) -> str:
    return f"{instances_prefix(address)}{_part(instance)}"


def instances_prefix(address: EndpointName) -> str:
    """The prefix of a pool's instances; of a whole namespace's, if `component` is empty."""
    prefix = f"{ROOT}{_part(address.namespace)}/instances/"
    if not address.component:
        return prefix
    return f"{prefix}{_part(address.component)}/{_part(address.endpoint)}/"


def identity_key(namespace: str, model: str) -> str:
    """For `Discovery.claim`: its value is the card identity that owns a model's name."""
    return f"{ROOT}{_part(namespace)}/models/{_part(model)}/identity"


def claim_key(address: EndpointName, model: str) -> str:
    """The `identity_key` of a model at one address: pools do not share the names of their models.
    Workers of 0.1 claim the name for the whole namespace."""
    return identity_key(address.namespace, f"{address.component}/{address.endpoint}/{model}")


def _part(text: str) -> str:
    return quote(text, safe="")
