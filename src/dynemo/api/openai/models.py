"""`GET /v1/models` and `GET /v1/models/{id}`."""

from collections.abc import Sequence
from urllib.parse import unquote

import msgspec

from dynemo.api.dialect import ModelEntry
from dynemo.api.openai.types import Model, ModelList
from dynemo.errors import UnknownModel


def list_models(models: Sequence[ModelEntry], _rest: str) -> bytes:
    return msgspec.json.encode(ModelList(data=[_model(entry) for entry in models]))


def show_model(models: Sequence[ModelEntry], name: str) -> bytes:
    """A name may hold slashes, so it is everything that follows the path. Raises UnknownModel."""
    found = {entry.name: entry for entry in models}
    entry = found.get(name) or found.get(unquote(name))
    if entry is None:
        raise UnknownModel(
            f"The model `{name[:200]}` does not exist or you do not have access to it.",
            param="model",
        )
    return msgspec.json.encode(_model(entry))


def _model(entry: ModelEntry) -> Model:
    return Model(id=entry.name, created=entry.created, context_length=entry.context_length)
