"""The HTTP input as a pure ASGI app, independent of the server that runs it.

Each request passes `access/` before its route runs.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import NoReturn

from dynemo.api.dialects import DIALECTS, dialect_of
from dynemo.errors import DynemoError, Unavailable
from dynemo.http.access.access import Access
from dynemo.http.asgi import SURPLUS, Header, Receive, Scope, Send
from dynemo.http.body import BodyRoom
from dynemo.http.bound_server import BoundServer
from dynemo.http.errors import ClientGone, NoSuchPath, WrongMethod, internal_error
from dynemo.http.exchange import Exchange, Limits
from dynemo.http.generate import Generate
from dynemo.http.health import Health
from dynemo.http.lookup import LookupEndpoint
from dynemo.http.openapi import OpenApi
from dynemo.http.page.page import Page
from dynemo.metrics import Metrics, WorkerMetrics
from dynemo.serving.pipeline import Pipeline

Endpoint = Callable[[Exchange], Awaitable[None]]
Route = Mapping[str, Endpoint]  #: by method

#: Are answered on every connection: a supervisor kills what does not answer them.
_PROBES = ("/live", "/health")

_log = logging.getLogger("dynemo.http")


class App:
    """Serves one pipeline. It ends in order: `drain`, then `idle`, then `cancel` if need be.

    With a worker's metrics, or with the health of another app, it serves health and metrics, and
    takes no requests. `has_metrics`: `/metrics` is among its paths.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        metrics: Metrics | WorkerMetrics,
        *,
        limits: Limits | None = None,
        access: Access | None = None,
        health: Health | None = None,
        has_metrics: bool = True,
    ) -> None:
        self._limits = limits or Limits()
        self.room = BodyRoom()
        self._access = access or Access()
        self._active: set[Exchange] = set()
        self._late: set[Exchange] = set()  # that began when it was draining; nobody waits for them
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self.is_draining = False
        is_full = health is None and isinstance(metrics, Metrics)
        self.health = health or Health(pipeline, metrics, lambda: self.is_draining)
        self._prefixes: dict[str, Route] = {}  # of lookups that cover the paths below
        self._routes: dict[str, Route] = {
            "/health": _reads(self.health.health),
            "/live": _reads(self.health.live),
        }
        if has_metrics:
            self._routes["/metrics"] = _reads(self.health.metrics)
        if is_full and isinstance(metrics, Metrics):
            metrics.watch_count(
                "dynemo_requests_moved",
                "Times that an answer has moved to another instance.",
                partial(pipeline.sums, lambda model: model.backend.moves),
            )
            metrics.watch_gauge(
                "dynemo_queue_requests",
                "Requests that wait for their turn at the engine.",
                partial(pipeline.sums, lambda model: model.room.waiting),
            )
            self._routes |= {"/openapi.json": _reads(OpenApi()), "/": _reads(Page(self.health))}
            for dialect in DIALECTS:
                for path, operation in dialect.operations.items():
                    self._routes[path] = {"POST": Generate(operation, pipeline, metrics)}
                for path, lookup in dialect.lookups.items():
                    routes = self._prefixes if path.endswith("/") else self._routes
                    routes[path] = _reads(LookupEndpoint(path, lookup, pipeline))

    def add_post(self, path: str, endpoint: Endpoint) -> None:
        self._routes[path] = {"POST": endpoint}

    def drain(self) -> None:
        """Takes no new requests from now on: they get 503, and `/health` says `draining`."""
        self.is_draining = True

    async def idle(self) -> None:
        """Returns once no request is being answered, apart from those that came after `drain`."""
        await self._is_idle.wait()

    def cancel(self, error: DynemoError) -> None:
        """Cancels every answer with this error: the last event of a stream, or the whole answer."""
        for exchange in [*self._active, *self._late]:
            exchange.cancel(error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            dialect = dialect_of(scope["path"])
            await self._exchange(Exchange(scope, receive, send, self._limits, dialect, self.room))
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _exchange(self, exchange: Exchange) -> None:
        group = self._late if self.is_draining else self._active
        group.add(exchange)
        if group is self._active:
            self._is_idle.clear()
        try:
            await self._answer(exchange)
        finally:
            exchange.release_body()
            group.discard(exchange)
            if not self._active:
                self._is_idle.set()

    async def _answer(self, exchange: Exchange) -> None:
        try:
            endpoint = self._admit(exchange) or self._find(exchange)
            await endpoint(exchange)
        except ClientGone:
            pass
        except DynemoError as error:
            await exchange.fail(error)
        except Exception:
            _log.exception("Request %s failed inside the server.", exchange.id)
            await exchange.fail(internal_error())

    def _admit(self, exchange: Exchange) -> Endpoint | None:
        """Checks who asks. Gives an endpoint if that is all that the request needs."""
        access, scope = self._access, exchange.scope
        host = access.check_host(scope)
        exchange.headers = access.cors_headers(scope)
        if (headers := access.preflight(scope)) is not None:
            return _permits(headers)
        access.check_origin(scope, host)
        exchange.client = access.client(scope)
        return None

    def _route(self, path: str) -> Route | None:
        if (route := self._routes.get(path)) is not None:
            return route
        below = (prefix for prefix in self._prefixes if path.startswith(prefix) and path != prefix)
        longest = max(below, key=len, default=None)
        return None if longest is None else self._prefixes[longest]

    def _find(self, exchange: Exchange) -> Endpoint:
        method, path = exchange.scope["method"], exchange.scope["path"]
        route = self._route(path)
        if route is None:
            raise NoSuchPath(f"Invalid URL ({method} {path[:200]})")
        endpoint = route.get(method)
        if endpoint is None:
            _refuse_method(method, path, route)
        if path not in _PROBES and SURPLUS in exchange.scope.get("extensions", ()):
            raise Unavailable("The server has too many connections. Send the request again later.")
        if self.is_draining and method == "POST":
            raise Unavailable("The server is shutting down.")
        return endpoint


def build_app(pipeline: Pipeline, server: BoundServer) -> tuple[App, App | None]:
    """An app with metrics of its own, and the app of the port for metrics if the server has one."""
    metrics, port = Metrics(), server.metrics
    app = App(pipeline, metrics, access=server.access, has_metrics=port is None)
    if port is None:
        return app, None
    return app, App(pipeline, metrics, access=port.access, health=app.health)


def _reads(endpoint: Endpoint) -> Route:
    return {"GET": endpoint, "HEAD": endpoint}


def _refuse_method(method: str, path: str, route: Route) -> NoReturn:
    raise WrongMethod(
        f"Not allowed to {method} on {path[:200]} "
        "(HINT: Perhaps you meant to use a different HTTP method?)",
        allow=", ".join(route),
    )


def _permits(headers: list[Header]) -> Endpoint:
    """Answers a preflight."""

    async def permit(exchange: Exchange) -> None:
        await exchange.reply(b"", content_type="text/plain", headers=headers)

    return permit


async def _live(receive: Receive, send: Send) -> None:
    """Answers the lifespan protocol: nothing here starts or ends with the server."""
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return
