"""`dynemo-run drain`: asks workers to finish their streams and to end."""

import asyncio
import logging
import secrets
from collections.abc import Sequence

from dynemo.app.networking import open_discovery
from dynemo.app.settings.options import Config
from dynemo.commands.loads import Loads, loads
from dynemo.commands.ps import read_records
from dynemo.connection.addresses import host_id, host_name
from dynemo.errors import DynemoError, InstanceAway, UsageError
from dynemo.messages.records import InstanceRecord
from dynemo.messages.wire import Envelope
from dynemo.spelling import quoted, visible
from dynemo.wire import versions


def drain(config: Config, instance: str, host: str) -> int:
    """Drains the instance whose id starts with `instance`, or all instances of a host.

    Returns 1 if one of them does not drain. Raises UsageError if there is none.
    """
    if bool(instance) == bool(host):
        raise UsageError("`dynemo-run drain` needs an INSTANCE of `dynemo-run ps`, or --host HOST.")
    logging.getLogger("dynemo.requests").setLevel(logging.ERROR)  # the lines below say it
    return asyncio.run(_drain(config, instance, host))


async def _drain(config: Config, instance: str, host: str) -> int:
    async with open_discovery(config) as discovery, loads(config) as asking:
        found = select(await read_records(discovery), instance, host)
        outcomes = await asyncio.gather(*(_ask(asking, record) for record in found))
        for record, problem in zip(found, outcomes, strict=True):
            outcome = problem or "finishes its streams, and then ends."
            print(visible(f"Instance {record.instance.id[:12]} of {record.model} {outcome}"))
    return 1 if any(outcomes) else 0


def select(records: Sequence[InstanceRecord], instance: str, host: str) -> list[InstanceRecord]:
    """Raises UsageError if no instance fits, or if more than one does where one is named."""
    if host:
        names = {host, host_id(), host_name()} if host == "localhost" else {host}
        found = [record for record in records if {record.host, record.hostname} & names]
        if not found:
            known = sorted({record.hostname or record.host for record in records})
            listed = f"; choose one of {', '.join(known)}" if known else ""
            raise UsageError(f"No instance is registered on host {quoted(host)}{listed}.")
        return found
    found = [record for record in records if record.instance.id.startswith(instance)]
    if not found:
        raise UsageError(
            f"No registered instance has an id that starts with {quoted(instance)}; "
            "`dynemo-run ps` lists them."
        )
    if len(found) > 1:
        raise UsageError(
            f"The ids of {len(found)} instances start with {quoted(instance)}; give more of it."
        )
    return found


async def _ask(asking: Loads, record: InstanceRecord) -> str:
    """Why the instance does not drain, as the end of a sentence; empty if it does."""
    plane = await asking.plane(record)
    if plane is None:
        return f"cannot be asked. {' '.join(asking.troubles)}"
    envelope = Envelope(
        key=secrets.token_bytes(32),
        addresses=[],
        stream=1,
        token=secrets.token_bytes(16),
        drain=True,
        oldest=versions.SPOKEN.oldest,
        newest=versions.SPOKEN.newest,
    )
    try:
        await plane.ask(record, envelope)
    except InstanceAway:
        return ""
    except (DynemoError, ValueError) as error:  # a record may hold anything, its key too
        return f"does not drain. {error}"
    return "does not drain: its release does not know how. Send SIGTERM to its process."
