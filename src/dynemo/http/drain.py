"""`POST /drain` at the status port of a worker, for a client with a key."""

from collections.abc import Callable

from dynemo.errors import Forbidden, Unauthenticated
from dynemo.http.access.keys import Keys
from dynemo.http.exchange import Exchange


class Drain:
    """The keys hold for this path alone: probes and scrapes of the port need none."""

    def __init__(self, keys: Keys | None, drain: Callable[[], None]) -> None:
        self._keys = keys
        self._drain = drain

    async def __call__(self, exchange: Exchange) -> None:
        if self._keys is None:
            raise Forbidden(
                "This worker has no key for its status port; start it with --api-key-file FILE."
            )
        if self._keys.find(exchange.scope) is None:
            raise Unauthenticated(
                "/drain needs a valid API key; send it as `Authorization: Bearer KEY`."
            )
        self._drain()
        await exchange.reply(b'{"status":"draining"}', status=202)
