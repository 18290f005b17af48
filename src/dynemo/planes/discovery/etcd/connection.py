"""Calls to etcd: which endpoint, as whom, over TLS or not, and what went wrong.

The one file that meets gRPC. Built on the stubs that `aetcd` carries, not on its client: that has
no TLS, no second endpoint and no paging, and its watcher can end without telling.
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

CALL_SECONDS = 2.0
_PORT = 2379

_OPTIONS = (
    # The variables that name a proxy mean the web, not a cluster's own servers.
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC's own backoff grows to two minutes: far beyond any lease.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A watch on a connection that was lost silently ends after this; etcd allows one in 5 s.
    ("grpc.keepalive_time_ms", 6000),
    ("grpc.keepalive_timeout_ms", 4000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),
)


@dataclass(frozen=True)
class EtcdSettings:
    """Where etcd is, and who we are to it. An `https://` endpoint, or `ca` or `cert`, means TLS."""

    endpoints: tuple[str, ...] = (f"127.0.0.1:{_PORT}",)  #: HOST[:PORT], http:// or https:// before
    user: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None  #: PEM; None: the system's
    cert: Path | None = None  #: ours, PEM, with `key`
    key: Path | None = None

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise UsageError("No etcd endpoint is given: HOST:PORT, several with commas between.")
        if (self.cert is None) != (self.key is None):
            raise UsageError("A certificate for etcd needs its key, and the key its certificate.")
        if bool(self.user) != bool(self.password):
            raise UsageError("etcd takes a user and a password together.")


def split_endpoints(text: str) -> tuple[str, ...]:
    """`a:2379,https://b:2379`, as ETCD_ENDPOINTS has it."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


class EtcdConnection:
    """Makes each call at the endpoint that answered last, and at the next one when it does not."""

    def __init__(self, settings: EtcdSettings) -> None:
        # gRPC writes to stderr what it also raises, and only this variable keeps it from that.
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
    def name(self) -> str:
        return f"etcd at {', '.join(self._targets)}"

    async def call(
        self, stub: str, method: str, request: Any, *, seconds: float = CALL_SECONDS
    ) -> Any:
        """One answer, from each endpoint within `seconds`.

        Raises LeaseLost, Refused or Unavailable.
        """
        problem: Unavailable = Unavailable(f"{self.name} does not answer.")
        is_anew = False
        for _ in range(len(self._targets) + 1):
            at = self._at
            try:
                async with self._translated(at):
                    metadata = await self._metadata()
                    unary = getattr(self._stub(stub), method)
                    return await unary(request, timeout=seconds, metadata=metadata)
            except Refused as error:
                if not self._token or is_anew:
                    raise
                # The token has run out, or is older than a change of permissions.
                problem, self._token, is_anew = error, "", True
            except Unavailable as error:
                problem = error
                if at == self._at:
                    break  # answered, but not with what was asked: another would say the same
        raise problem

    async def ask_stream(self, stub: str, method: str, request: Any) -> Any:
        """The first answer of a stream that is then closed."""
        async with contextlib.aclosing(self.stream(stub, method, request)) as answers:
            return await anext(answers)

    async def stream(self, stub: str, method: str, request: Any) -> AsyncGenerator[Any, None]:
        """Answers to one request until the stream breaks: then raises like `call`. The first one
        has a deadline, the others have not."""
        at = self._at
        async with self._translated(at):
            metadata = await self._metadata()
            stream = getattr(self._stub(stub), method)(metadata=metadata)
            self._streams.add(stream)
        try:
            async with self._translated(at), asyncio.timeout(CALL_SECONDS):
                await stream.write(request)
                answer = await stream.read()
            while answer:  # falsy: gRPC's mark of the end
                yield answer
                async with self._translated(at):
                    answer = await stream.read()
            raise Unavailable(f"{self.name} closed a stream.")
        finally:
            self._streams.discard(stream)
            stream.cancel()

    async def tls_trouble(self) -> str:
        """Why no endpoint will do, however long we try, where that is for TLS; or empty."""
        said = [await tls_trouble(target, self._tls) for target in self._targets]
        return said[0] if all(said) else ""

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
        # `hasleader`: a member that is cut off from the others ends its streams.
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
            # gRPC says so too of a call that was cancelled from outside, as `_turn_from` does.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise Unavailable(f"The connection to {self.name} was closed.") from None

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
        """To the next endpoint, with what still hangs on this one."""
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
    raise UsageError(f"{endpoint} is no etcd endpoint; give HOST:PORT, or http:// or https://.")


def _tls(settings: EtcdSettings) -> ssl.SSLContext | None:
    """None: no TLS. gRPC takes none of it, but would find fault with the files much later."""
    is_https = {endpoint.startswith("https://") for endpoint in settings.endpoints}
    if len(is_https) == 2:
        raise UsageError("All etcd endpoints must be https://, or none.")
    if is_https == {False} and settings.ca is None and settings.cert is None:
        return None
    return connecting_context(settings.ca, settings.cert, settings.key)


def _credentials(settings: EtcdSettings) -> Any:
    """gRPC's for TLS."""
    import grpc  # type: ignore[import-untyped]

    files = (settings.ca, settings.key, settings.cert)
    return grpc.ssl_channel_credentials(*[path.read_bytes() if path else None for path in files])
