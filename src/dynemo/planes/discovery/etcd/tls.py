"""Finds out why TLS with etcd fails. gRPC does not report it."""

import asyncio
import ssl

from dynemo.connection.addresses import split_address
from dynemo.connection.tls import connecting_context, explain

_SECONDS = 1.0
_FILES = "Set its files with ETCD_AUTH_CA, ETCD_AUTH_CLIENT_CERT and ETCD_AUTH_CLIENT_KEY."


async def tls_trouble(target: str, context: ssl.SSLContext | None) -> str:
    """A sentence, or empty if TLS is not the reason. `context` None: we use no TLS."""
    try:
        await _try(target, context)
    except ssl.SSLError as error:
        return f"etcd at {target}: {explain(error)}. {_FILES}" if context is not None else ""
    except (OSError, TimeoutError):
        return ""
    return "" if context is not None else f"etcd at {target} uses TLS; write https://{target}."


async def _try(target: str, context: ssl.SSLContext | None) -> None:
    """Connects, and raises what fails. Without a context, it accepts any certificate."""
    host, port = split_address(target)
    used = context or _unchecked()
    used.set_alpn_protocols(["h2"])
    async with asyncio.timeout(_SECONDS):
        reader, writer = await asyncio.open_connection(host, port, ssl=used)
        try:
            if context is not None:
                await reader.read(1)  # etcd refuses our certificate only after the handshake
        finally:
            writer.transport.abort()


def _unchecked() -> ssl.SSLContext:
    context = connecting_context(None, None, None)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
