"""`GET /v1/models` and `GET /v1/models/{id}`."""

from urllib.parse import unquote

import msgspec

from dynemo.api.openai.types import Model, ModelList
from dynemo.errors import UnknownModel
from dynemo.http.exchange import Exchange
from dynemo.serving.pipeline import Pipeline, ServedModel

PREFIX = "/v1/models/"


class Models:
    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def list(self, exchange: Exchange) -> None:
        models = [_model(served) for served in self._pipeline.models.values()]
        await exchange.reply(msgspec.json.encode(ModelList(data=models)))

    async def show(self, exchange: Exchange) -> None:
        # A name may hold slashes, so it is all that follows the prefix.
        name = exchange.scope["path"].removeprefix(PREFIX)
        served = self._pipeline.models.get(name) or self._pipeline.models.get(unquote(name))
        if served is None:
            raise UnknownModel(
                f"The model `{name[:200]}` does not exist or you do not have access to it.",
                param="model",
            )
        await exchange.reply(msgspec.json.encode(_model(served)))


def _model(served: ServedModel) -> Model:
    return Model(id=served.name, created=served.created, context_length=served.context_length)
