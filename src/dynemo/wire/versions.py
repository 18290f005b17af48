"""The versions of the protocol that this release speaks, and the version of two peers. Pure.

A release speaks a range of versions. Two peers use the highest version that both ranges hold. So
workers and ingresses of two releases work together, and a cluster can be upgraded in any order. A
peer says its range before the other side needs it: a worker in its `InstanceRecord`, an ingress in
each `Envelope`, and both in their `Greeting`.

Most changes need no new version:

- A new field of a map, or a new element at the end of an array: readers skip what they do not know.
  A field that exists keeps its name, its position, its type and its meaning.
- A new error: it travels by its code, see `wire/failures.py`.

- A new `Guide.kind`: it goes only to an instance whose capabilities name it.

Three changes need a new version: a new kind of frame, a new meaning, and a new value in a closed
set (`Capabilities.takes`, `Finish.reason`). A sender uses the change only towards a peer that
speaks that version.

The oldest version leaves the range one release after the newest version entered it, at the
earliest.
"""

from typing import NamedTuple

from dynemo.errors import WireError
from dynemo.messages.records import InstanceRecord
from dynemo.messages.wire import Envelope, Greeting


class VersionRange(NamedTuple):
    oldest: int
    newest: int

    def __str__(self) -> str:
        return str(self.oldest) if self.newest <= self.oldest else f"{self.oldest} to {self.newest}"


#: What this release speaks.
SPOKEN = VersionRange(1, 1)


def spoken_by(peer: Greeting | Envelope | InstanceRecord) -> VersionRange:
    """The range that a message names. A peer that names no range speaks one version."""
    oldest = peer.protocol if isinstance(peer, Greeting) else peer.oldest
    return VersionRange(oldest, max(oldest, peer.newest))


def negotiate(worker_id: str, worker: VersionRange, ingress: VersionRange) -> int:
    """The highest version that both speak. Raises WireError if there is none.

    The error's sentence is the same on both sides: it names both ranges and what to upgrade.
    """
    version = min(worker.newest, ingress.newest)
    if version >= max(worker.oldest, ingress.oldest):
        return version
    older = "ingress" if ingress.newest < worker.oldest else "worker"
    raise WireError(
        f"Worker {worker_id[:8]} speaks protocol {worker}; the ingress speaks protocol {ingress}. "
        f"Upgrade the {older}."
    )
