import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec

from dynemo.api.openai.types import ChatRequest
from dynemo.http.app import App
from support.asgi_client import call, make_app
from support.fake_pipeline import FakePipeline


def document(app: App) -> Any:
    return asyncio.run(call(app, "GET", "/openapi.json")).json


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_it_describes_what_is_served() -> None:
    app = make_app(FakePipeline())
    said = document(app)
    assert said["openapi"] == "3.1.0"
    assert said["info"]["title"]
    assert said["info"]["version"]
    paths = set(said["paths"])
    routes = app._routes | {f"{prefix}{{id}}": route for prefix, route in app._prefixes.items()}
    assert paths == routes.keys()
    for path, operations in said["paths"].items():
        for method, operation in operations.items():
            assert operation["responses"], path
            assert operation["operationId"], path
            assert method.upper() in routes[path]
    ids = [o["operationId"] for p in said["paths"].values() for o in p.values()]
    assert len(ids) == len(set(ids))


def test_every_reference_leads_somewhere() -> None:
    said = document(make_app(FakePipeline()))
    schemas = said["components"]["schemas"]
    found = set(references(said))
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in schemas


def test_the_request_s_fields_and_ranges() -> None:
    schemas = document(make_app(FakePipeline()))["components"]["schemas"]
    request = schemas["ChatRequest"]
    assert set(request["properties"]) == {f.name for f in msgspec.structs.fields(ChatRequest)}
    assert request["required"] == ["messages"]
    assert request["additionalProperties"] is False
    temperature = request["properties"]["temperature"]["anyOf"]
    assert {"type": "number", "minimum": 0, "maximum": 2} in temperature
    assert "Not honoured yet" in request["properties"]["audio"]["description"]
    tool = request["properties"]["tools"]["anyOf"][0]["items"]
    assert tool["required"] == ["type", "function"]
    assert schemas["Message"]["properties"]["role"]["enum"]
    assert set(schemas["ErrorDetail"]["properties"]) == {"message", "type", "param", "code"}
