"""A model with many instances in `/health`, in `/metrics` and on the page."""

import asyncio

from msgspec import structs
from test_http_metrics import scrape

from dynemo.http.app import App
from dynemo.messages.records import Load
from dynemo.metrics import MAX_INSTANCES
from dynemo.serving.instance import InstanceStatus
from support.asgi_client import call, make_app
from support.fake_pipeline import FakePipeline


def app_with(count: int) -> App:
    """Returns an app whose model has `count` instances. Number n runs n sequences."""
    pipeline = FakePipeline()
    del pipeline.served["org/other"]
    backend = pipeline.backend
    assert backend.instance is not None
    backend.others = [
        InstanceStatus(
            structs.replace(backend.instance, id=f"i{n}", engine="echo"), Load(n, 0, 0.25)
        )
        for n in range(2, count + 1)
    ]
    return make_app(pipeline)


def test_health_names_each_with_its_load() -> None:
    reply = asyncio.run(call(app_with(3), "GET", "/health"))
    instances = reply.json["models"][0]["instances"]
    assert [(i["id"], i["engine"], i["running"]) for i in instances] == [
        ("i1", "fake", 1),
        ("i2", "echo", 2),
        ("i3", "echo", 3),
    ]


def test_the_page_names_some_and_counts_the_rest() -> None:
    few = asyncio.run(call(app_with(3), "GET", "/")).body.decode()
    assert few.count("slots in use") == 3
    assert " more</div>" not in few
    many = asyncio.run(call(app_with(30), "GET", "/")).body.decode()
    assert many.count("slots in use") == 10
    assert "and 20 more" in many


def test_gauges_of_each_instance() -> None:
    got = scrape(app_with(MAX_INSTANCES))
    assert sum(name.startswith("dynemo_engine_running{") for name in got) == MAX_INSTANCES
    assert got['dynemo_engine_running{instance_id="i7",model="demo"}'] == 7


def test_gauges_of_more_instances_than_labels_may_name() -> None:
    got = scrape(app_with(MAX_INSTANCES + 1))
    names = [name for name in got if "instance_id=" in name]
    assert sorted(names) == [
        f'dynemo_engine_{what}{{instance_id="all",model="demo"}}'
        for what in ("kv_use", "running", "waiting")
    ]
