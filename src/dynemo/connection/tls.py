"""TLS between workers and ingresses, from a folder of PEM files with the names of Kubernetes.

    tls.crt, tls.key   this process's certificate and its key; a listener needs both
    ca.crt             the authority that signed the peers' certificates. With it, both sides check
                       each other (mutual TLS). Without it, the side that dials trusts the system's
                       authorities, and the listener checks nobody.

The side that dials also checks that the certificate is for the address that it dialled.
"""

import logging
import ssl
from collections.abc import Mapping
from pathlib import Path

from dynemo.errors import UsageError
from dynemo.spelling import quoted

log = logging.getLogger("dynemo.tls")

_NAMES = CA, CERT, KEY = "ca.crt", "tls.crt", "tls.key"


def server_context(folder: Path) -> ssl.SSLContext:
    """For a socket that listens. Raises UsageError."""
    ca, cert, key = files_of(folder)
    if cert is None:
        raise UsageError(
            f"--tls {folder}: a listener needs the files {CERT} and {KEY} in that folder."
        )
    context = listening_context(ca, cert, key)
    context.sslobject_class = _Listening
    return context


def listening_context(ca: Path | None, cert: Path, key: Path | None) -> ssl.SSLContext:
    """For a socket that listens. `ca` None: peers need no certificate. `key` None: it is in the
    file of the certificate. Raises UsageError."""
    return _context(ssl.Purpose.CLIENT_AUTH, ca, cert, key)


def client_context(folder: Path) -> ssl.SSLContext:
    """For connections that are dialled. Raises UsageError."""
    return connecting_context(*files_of(folder))


def connecting_context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """For connections to a server. `ca` None: the system's authorities. `cert` None: no certificate
    of ours. Raises UsageError."""
    return _context(ssl.Purpose.SERVER_AUTH, ca, cert, key)


def files_of(folder: Path) -> tuple[Path | None, Path | None, Path | None]:
    """The authority's certificate, ours and its key; None for a missing file. Raises UsageError."""
    ca, cert, key = (path if path.is_file() else None for path in map(folder.joinpath, _NAMES))
    if (cert is None) != (key is None):
        raise UsageError(f"--tls {folder}: the folder has only one of {CERT} and {KEY}.")
    if ca is None and cert is None:
        raise UsageError(f"--tls {folder}: the folder has neither {CA} nor {CERT} and {KEY}.")
    return ca, cert, key


def _context(
    purpose: ssl.Purpose, ca: Path | None, cert: Path | None, key: Path | None
) -> ssl.SSLContext:
    at = ca
    try:
        context = ssl.create_default_context(purpose, cafile=ca)
        if ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        if cert is not None:
            at = cert
            context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise UsageError(
            f"{quoted(str(at))} cannot be used for TLS: {_readable(reason)}."
        ) from None
    return context


class _Listening(ssl.SSLObject):
    """Logs the peers that it refuses. Event loops do not."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            log.warning("TLS handshake with a peer failed: %s.", explain(error))
            raise


def _no_password() -> str:
    """Without this, OpenSSL would ask on the terminal."""
    raise ValueError("its key has a password; use a key without one")


def explain(error: ssl.SSLError) -> str:
    """Describes a failure between two peers, as a clause."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message.rstrip('.')}"
    reason = _readable(error.reason or error)
    _, _, alert = reason.partition("alert ")
    if "certificate" in alert or "unknown ca" in alert:
        return f"it refuses this side's certificate: {alert}"
    return f"TLS fails: {reason}"


def _readable(reason: object) -> str:
    """For OpenSSL's constants, such as KEY_VALUES_MISMATCH."""
    text = str(reason)
    return text.replace("_", " ").lower() if text.isupper() else text


def server_files(
    environment: Mapping[str, str], server: str, folder: Path | None
) -> tuple[Path | None, Path | None, Path | None]:
    """The authority's certificate, our certificate and its key, for `ETCD` or `NATS`.

    They come from the server's variables (`ETCD_AUTH_CA`, ...). Without any, those in `folder`
    apply. Raises UsageError.
    """
    names = ("CA", "CLIENT_CERT", "CLIENT_KEY")
    ca, cert, key = (_path(environment, f"{server}_AUTH_{name}") for name in names)
    if (cert is None) != (key is None):
        missing = "CLIENT_KEY" if key is None else "CLIENT_CERT"
        raise UsageError(
            f"The variables {server}_AUTH_CLIENT_CERT and {server}_AUTH_CLIENT_KEY go together; "
            f"set {server}_AUTH_{missing} too."
        )
    if folder is not None and ca is None and cert is None:
        return files_of(folder)
    return ca, cert, key


def _path(environment: Mapping[str, str], variable: str) -> Path | None:
    value = environment.get(variable)
    if not value:
        return None
    path = Path(value).expanduser()
    if not path.is_file():
        raise UsageError(f"{variable} names {quoted(value)}, which is not a file; give its path.")
    return path
