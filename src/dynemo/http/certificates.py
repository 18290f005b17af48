"""TLS for HTTP, with files that may be replaced while the server runs.

A handshake looks at the files, at most once a second. If they have changed, it makes a new context
of them. It then switches to the newest context, in the callback that TLS has for server names and
that OpenSSL calls without a name, too. Open connections keep their context. Files that do not fit
together leave the context from before in use.
"""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from dynemo.connection.tls import listening_context
from dynemo.errors import UsageError
from dynemo.http.file_change import Signature, signature

_log = logging.getLogger("dynemo.http")

_LOOK_SECONDS = 1.0  #: between two looks at the files


@dataclass(frozen=True)
class CertificateFiles:
    cert: Path
    key: Path | None  #: None: in the file of the certificate
    client_ca: Path | None  #: None: clients need no certificate

    def context(self) -> ssl.SSLContext:
        """Raises UsageError."""
        return listening_context(self.client_ca, self.cert, self.key)

    def signatures(self) -> list[Signature]:
        files = (self.cert, self.key, self.client_ca)
        return [signature(file) for file in files if file is not None]


def fresh_context(files: CertificateFiles) -> ssl.SSLContext:
    """A context whose handshakes use what the files hold now. Raises UsageError."""
    seen, look_at = files.signatures(), monotonic() + _LOOK_SECONDS
    first = newest = files.context()

    def switch(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        nonlocal seen, look_at, newest
        if monotonic() >= look_at:
            look_at = monotonic() + _LOOK_SECONDS
            if (found := files.signatures()) != seen:
                seen = found
                newest = _renewed(files, newest)
        connection.context = newest

    first.sni_callback = switch
    return first


def _renewed(files: CertificateFiles, before: ssl.SSLContext) -> ssl.SSLContext:
    try:
        context = files.context()
    except UsageError as error:
        _log.error("%s The certificate from before remains in use.", error)
        return before
    _log.info("The certificate has changed; new connections use it.")
    return context
