import asyncio
import re
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from dynemo.errors import EngineLost
from dynemo.http.app import App
from dynemo.messages.answer import Finish, TextPiece
from dynemo.metrics import Metrics, WorkerMetrics
from support.asgi_client import CHAT, Caller, ask, call, chat_body, make_app
from support.fake_pipeline import PROMPT_TOKENS, FakePipeline, Script, say
from support.pieces import ended
from support.waiting import until

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def scrape(app: App, accept: str = "") -> dict[str, float]:
    reply = asyncio.run(call(app, "GET", "/metrics", headers={"accept": accept}))
    lines = [line for line in reply.body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_what_a_request_leaves() -> None:
    app = make_app(FakePipeline([x for p in say(*"abc") for x in (0.003, p)]))
    ask(app, stream=True)
    ask(app)
    got = scrape(app)
    demo = '{model="demo"}'
    assert got['dynemo_requests_total{model="demo",status="200"}'] == 2
    assert got[f"dynemo_requests_in_flight{demo}"] == 0
    assert got[f"dynemo_requests_queued{demo}"] == 0
    assert got[f"dynemo_input_tokens_total{demo}"] == 2 * PROMPT_TOKENS
    assert got[f"dynemo_output_tokens_total{demo}"] == 8
    assert got[f"dynemo_time_to_first_token_seconds_count{demo}"] == 2
    assert got[f"dynemo_inter_token_latency_seconds_count{demo}"] == 6
    assert 0.018 <= got[f"dynemo_inter_token_latency_seconds_sum{demo}"] < 1
    assert got['dynemo_request_duration_seconds_count{model="demo",status="200"}'] == 2
    engine = '{instance_id="i1",model="demo"}'
    assert got[f"dynemo_engine_running{engine}"] == 1
    assert got[f"dynemo_engine_waiting{engine}"] == 2
    assert got[f"dynemo_engine_kv_use{engine}"] == 0.5
    assert got[f"dynemo_engine_restarts_total{demo}"] == 0
    assert got[f"dynemo_requests_moved_total{demo}"] == 0
    assert any(name.startswith("process_") for name in got)


def test_each_is_in_the_docs_by_the_name_that_it_has_here() -> None:
    families = list(WorkerMetrics("demo").registry.collect())
    reply = asyncio.run(call(make_app(FakePipeline([])), "GET", "/metrics"))
    families += text_string_to_metric_families(reply.body.decode())
    ours = [family for family in families if family.name.startswith("dynemo_")]
    names = {f"{each.name}_total" if each.type == "counter" else each.name for each in ours}
    assert set(re.findall(r"`(dynemo_[a-z_]+)`", DOCS.read_text())) == names


def test_what_was_in_the_cache_counts_once_however_many_choices() -> None:
    pieces = [*say("a", index=0, cached=3), *say("b", index=1, cached=5)]
    app = make_app(FakePipeline(pieces))
    ask(app, n=2)
    ask(app, n=2, stream=True)
    assert scrape(app)['dynemo_cached_tokens_total{model="demo"}'] == 6


def test_in_flight_and_queued_while_it_runs() -> None:
    pipeline = FakePipeline([60.0])

    async def scenario() -> None:
        app = make_app(pipeline)
        caller = Caller(app, "POST", CHAT, chat_body())
        task = asyncio.create_task(caller.run())
        await until(lambda: pipeline.running)
        text = (await call(app, "GET", "/metrics")).body
        assert b'dynemo_requests_in_flight{model="demo"} 1.0' in text
        assert b'dynemo_requests_queued{model="demo"} 1.0' in text
        caller.leave()
        await task

    asyncio.run(scenario())


def test_labels_are_bounded() -> None:
    app = make_app(FakePipeline())
    for i in range(5):
        ask(app, model=f"nope-{i}")
        ask(app, temperature=9)
    got = scrape(app)
    assert got['dynemo_requests_total{model="-",status="404"}'] == 5
    assert got['dynemo_requests_total{model="-",status="400"}'] == 5
    assert not any("nope" in name for name in got)


def test_an_error_after_the_headers_counts_under_its_status() -> None:
    app = make_app(FakePipeline([TextPiece(0, "a", 1), EngineLost("x")]))
    ask(app, stream=True)
    got = scrape(app)
    assert got['dynemo_requests_total{model="demo",status="502"}'] == 1
    assert got['dynemo_output_tokens_total{model="demo"}'] == 1


def test_tokens_that_come_together_are_one_observation_of_their_mean() -> None:
    script: Script = [
        TextPiece(0, "", 1),
        0.04,
        TextPiece(0, "abcd", 4),
        ended(0, "", 0, Finish("stop", 7, 5)),
    ]
    app = make_app(FakePipeline(script))
    ask(app)
    got = scrape(app)
    assert got['dynemo_inter_token_latency_seconds_count{model="demo"}'] == 1
    assert got['dynemo_inter_token_latency_seconds_sum{model="demo"}'] > 0.009
    assert got['dynemo_output_tokens_total{model="demo"}'] == 5


def test_the_format_that_a_scraper_asks_for() -> None:
    app = make_app(FakePipeline())

    def content_type(accept: str) -> Any:
        reply = asyncio.run(call(app, "GET", "/metrics", headers={"accept": accept}))
        return reply.headers["content-type"]

    assert content_type("").startswith("text/plain")
    assert content_type("application/openmetrics-text").startswith("application/openmetrics")


def test_each_app_has_metrics_of_its_own() -> None:
    assert Metrics().registry is not Metrics().registry
