"""The endpoint behind a dialect's lookups: what is served, without asking a model."""

from dynemo.api.dialect import Lookup, ModelEntry
from dynemo.errors import Unavailable
from dynemo.http.exchange import Exchange
from dynemo.serving.pipeline import Pipeline


class LookupEndpoint:
    def __init__(self, path: str, lookup: Lookup, pipeline: Pipeline) -> None:
        self._path = path
        self._lookup = lookup
        self._pipeline = pipeline

    async def __call__(self, exchange: Exchange) -> None:
        models = [
            ModelEntry(served.name, served.created, served.context_length)
            for served in self._pipeline.models.values()
            if exchange.client.may_use(served.name)
        ]
        if not models and (why := self._pipeline.source.absence(None)):
            raise Unavailable(why)
        rest = exchange.scope["path"].removeprefix(self._path)
        await exchange.reply(self._lookup.answer(models, rest))
