"""What is wrong between us and an etcd about TLS. gRPC knows, and does not say it in words."""

import asyncio
import ssl

from dynemo.connection.addresses import split_address
from dynemo.connection.tls import connecting_context, explain

_SECONDS = 1.0
_FILES = "ETCD_AUTH_CA, ETCD_AUTH_CLIENT_CERT and ETCD_AUTH_CLIENT_KEY name the files for it"


async def tls_trouble(target: str, context: ssl.SSLContext | None) -> str:
    """In a sentence; empty where there is nothing to be seen. `context` None: none is asked for."""
    try:
        await _look(target, context)
    except ssl.SSLError as error:
        return f"etcd at {target}: {explain(error)}; {_FILES}." if context is not None else ""
    except (OSError, TimeoutError):
        return ""
    return "" if context is not None else f"etcd at {target} has TLS: write https://{target}."


async def _look(target: str, context: ssl.SSLContext | None) -> None:
    """Raises what is wrong. Without a context any TLS at all is right."""
    host, port = split_address(target)
    used = context or _uncritical()
    used.set_alpn_protocols(["h2"])
    async with asyncio.timeout(_SECONDS):
        reader, writer = await asyncio.open_connection(host, port, ssl=used)
        try:
            if context is not None:
                await reader.read(1)  # it refuses our certificate only after the handshake
        finally:
            writer.transport.abort()


def _uncritical() -> ssl.SSLContext:
    context = connecting_context(None, None, None)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
