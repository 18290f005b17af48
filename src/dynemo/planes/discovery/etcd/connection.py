"""Calls to etcd: the endpoint, the credentials, TLS, and the translation of errors.

The only file that uses gRPC. It uses the stubs of `aetcd`, not its client: that has no TLS, no
second endpoint and no paging, and its watch can end without an error.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from dynemo.connection.tls import connecting_context
from dynemo.errors import Unavailable, UsageError
from dynemo.planes.discovery.base import LeaseLost, Refused
from dynemo.planes.discovery.etcd.tls import tls_trouble
from dynemo.spelling import quoted

CALL_SECONDS = 2.0
_PORT = 2379

_OPTIONS = (
    # A proxy in the environment is for the web, not for a cluster's own servers.
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC's default backoff grows to two minutes, far beyond any lease.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Ends a watch on a connection that broke silently; etcd allows one ping in 5 s.
    ("grpc.keepalive_time_ms", 6000),
    ("grpc.keepalive_timeout_ms", 4000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),
)


@dataclass(frozen=True)
class EtcdSettings:
    """etcd's endpoints and our credentials. An `https://` endpoint, `ca` or `cert` means TLS."""

    endpoints: tuple[str, ...] = (
        f"127.0.0.1:{_PORT}",
    )  #: HOST[:PORT], perhaps after http:// or https://
    user: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None  #: PEM; None: the system's
    cert: Path | None = None  #: ours, PEM, with `key`
    key: Path | None = None

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise UsageError("No etcd endpoint is given; give HOST:PORT, several with commas.")
        if (self.cert is None) != (self.key is None):
            raise UsageError("A certificate for etcd needs its key, and the key its certificate.")
        if bool(self.user) != bool(self.password):
            raise UsageError("etcd needs a user and a password together; set both or none.")


def split_endpoints(text: str) -> tuple[str, ...]:
    """For a list as in ETCD_ENDPOINTS: `a:2379,https://b:2379`."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


class EtcdConnection:
    """Calls the endpoint that answered last, and the next one if that does not answer."""

    def __init__(self, settings: EtcdSettings) -> None:
        # Without this variable, gRPC also writes to stderr what it raises.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from aetcd import rpc  # type: ignore[import-untyped]  # costs 0.2 s

        self.rpc: Any = rpc
        self._settings = settings
        self._targets = [_target(endpoint) for endpoint in settings.endpoints]
        self._tls = _tls(settings)
        self._credentials = _credentials(settings) if self._tls is not None else None
        self._at = 0
        self._channels: dict[int, Any] = {}
        self._streams: set[Any] = set()
        self._token = ""

    @property
    def where(self) -> str:
        """The endpoints, for messages."""
        return ", ".join(self._targets)

    async def call(
        self, stub: str, method: str, request: Any, *, seconds: float = CALL_SECONDS
    ) -> Any:
        """One answer. Each endpoint has `seconds` for it.

        Raises LeaseLost, Refused or Unavailable.
        """
        problem: Unavailable = Unavailable(f"etcd at {self.where} does not answer.")
        has_new_token = False
        for _ in range(len(self._targets) + 1):
            at = self._at
            try:
                async with self._translated(at):
                    metadata = await self._metadata()
                    unary = getattr(self._stub(stub), method)
                    return await unary(request, timeout=seconds, metadata=metadata)
            except Refused as error:
                if not self._token or has_new_token:
                    raise
                # The token has expired, or is older than a change of permissions.
                problem, self._token, has_new_token = error, "", True
            except Unavailable as error:
                problem = error
                if at == self._at:
                    break  # it answered with an error: another endpoint would give the same
        raise problem

    async def ask_stream(self, stub: str, method: str, request: Any) -> Any:
        """The first answer of a stream. Closes the stream then."""
        async with contextlib.aclosing(self.stream(stub, method, request)) as answers:
            return await anext(answers)

    async def stream(self, stub: str, method: str, request: Any) -> AsyncGenerator[Any, None]:
        """Answers to one request until the stream breaks; then raises like `call`. Only the first
        answer has a deadline."""
        at = self._at
        async with self._translated(at):
            metadata = await self._metadata()
            stream = getattr(self._stub(stub), method)(metadata=metadata)
            self._streams.add(stream)
        try:
            async with self._translated(at), asyncio.timeout(CALL_SECONDS):
                await stream.write(request)
                answer = await stream.read()
            while answer:  # gRPC's end of a stream is falsy
                yield answer
                async with self._translated(at):
                    answer = await stream.read()
            raise Unavailable(f"etcd at {self.where} closed a stream.")
        finally:
            self._streams.discard(stream)
            stream.cancel()

    async def tls_trouble(self) -> str:
        """Why TLS keeps every endpoint from ever answering; else empty."""
        troubles = [await tls_trouble(target, self._tls) for target in self._targets]
        return troubles[0] if all(troubles) else ""

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()

    def _stub(self, stub: str) -> Any:
        channel = self._channels.get(self._at)
        if channel is None:
            target = self._targets[self._at]
            channel = (
                self.rpc.secure_channel(target, self._credentials, options=_OPTIONS)
                if self._credentials is not None
                else self.rpc.insecure_channel(target, options=_OPTIONS)
            )
            self._channels[self._at] = channel
        return getattr(self.rpc, stub)(channel)

    async def _metadata(self) -> tuple[tuple[str, str], ...]:
        # `hasleader`: a member without a leader ends its streams.
        leader = ("hasleader", "true")
        if not self._settings.user:
            return (leader,)
        if not self._token:
            request = self.rpc.AuthenticateRequest(
                name=self._settings.user, password=self._settings.password
            )
            answer = await self._stub("AuthStub").Authenticate(request, timeout=CALL_SECONDS)
            self._token = answer.token
        return (leader, ("token", self._token))

    @contextlib.asynccontextmanager
    async def _translated(self, at: int) -> AsyncGenerator[None, None]:
        try:
            yield
        except self.rpc.AioRpcError as error:
            self._raise(error, at)
        except TimeoutError:
            self._turn_from(at)
            raise Unavailable(f"etcd at {self._targets[at]} does not answer in time.") from None
        except asyncio.CancelledError:
            # gRPC raises this too if `_turn_from` cancels the call.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise Unavailable(f"The connection to etcd at {self.where} was closed.") from None

    def _raise(self, error: Any, at: int) -> NoReturn:
        code, kind = error.code(), self.rpc.StatusCode
        target, details = self._targets[at], error.details() or code.name
        if code is kind.NOT_FOUND:
            raise LeaseLost from error
        if code in (kind.UNAVAILABLE, kind.DEADLINE_EXCEEDED, kind.CANCELLED):
            self._turn_from(at)
            raise Unavailable(f"etcd at {target} does not answer ({details}).") from error
        if code in (
            kind.UNAUTHENTICATED,
            kind.PERMISSION_DENIED,
            kind.INVALID_ARGUMENT,
            kind.FAILED_PRECONDITION,
        ):
            raise Refused(f"etcd at {target} refuses: {details}.") from error
        raise Unavailable(f"etcd at {target} fails: {details}.") from error

    def _turn_from(self, at: int) -> None:
        """Switches to the next endpoint, and cancels the streams of this one."""
        if at != self._at:
            return  # another call was first
        self._at = (at + 1) % len(self._targets)
        for stream in self._streams:
            stream.cancel()


def _target(endpoint: str) -> str:
    url = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
    with contextlib.suppress(ValueError):
        if url.hostname and url.scheme in ("", "http", "https") and url.path in ("", "/"):
            host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
            return f"{host}:{url.port or _PORT}"
    raise UsageError(
        f"{quoted(endpoint)} is not an etcd endpoint; give HOST:PORT, http://HOST:PORT or "
        "https://HOST:PORT."
    )


def _tls(settings: EtcdSettings) -> ssl.SSLContext | None:
    """None: no TLS. gRPC does not use it; it checks the files early."""
    is_https = {endpoint.startswith("https://") for endpoint in settings.endpoints}
    if len(is_https) == 2:
        raise UsageError("Either all etcd endpoints are https://, or none.")
    if is_https == {False} and settings.ca is None and settings.cert is None:
        return None
    return connecting_context(settings.ca, settings.cert, settings.key)


def _credentials(settings: EtcdSettings) -> Any:
    """gRPC's credentials for TLS."""
    import grpc  # type: ignore[import-untyped]

    files = (settings.ca, settings.key, settings.cert)
    return grpc.ssl_channel_credentials(*[path.read_bytes() if path else None for path in files])
