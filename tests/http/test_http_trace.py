"""W3C Trace Context: the examples of the specification, and the uses of a trace."""

import logging
from typing import Any

import pytest

from dynemo.serving.pipeline import Job
from dynemo.trace import continue_trace, trace_id
from support.asgi_client import CHAT, Caller, chat_body, make_app, run
from support.fake_pipeline import FakePipeline

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", "01"),
        (f"00-{TRACE}-{SPAN}-00", "00"),
        (f"00-{TRACE}-{SPAN}-03", "01"),  # a flag that version 00 does not know
        (f"cc-{TRACE}-{SPAN}-01", "01"),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", "01"),
    ],
)
def test_a_trace_continues_with_a_new_span(given: str, flags: str) -> None:
    version, trace, span, said = continue_trace([given]).split("-")
    assert (version, trace, said) == ("00", TRACE, flags)
    assert span != SPAN
    assert len(span) == 16
    assert trace_id(continue_trace([given])) == TRACE


@pytest.mark.parametrize(
    "given",
    [
        [],
        [""],
        [f"00-{TRACE}-{SPAN}-01"] * 2,
        [f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01"],
        [f"00-{TRACE}-{SPAN}-01-more"],
        [f"00-{TRACE}-{SPAN}-01-"],
        [f"00-{TRACE}-{SPAN}-1"],
        [f"00-{TRACE}-{SPAN}"],
        [f"00-{TRACE.upper()}-{SPAN}-01"],
        [f"00-{TRACE[:-1]}-{SPAN}-01"],
        [f"00-{TRACE[:-1]}.-{SPAN}-01"],
        [f"00-{'0' * 32}-{SPAN}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE}-{SPAN}-01\n"],
        [f"ff-{TRACE}-{SPAN}-01"],
        [f"cc-{TRACE}-{SPAN}-01.what"],
    ],
)
def test_an_invalid_header_starts_a_new_trace(given: list[str]) -> None:
    version, trace, span, flags = continue_trace(given).split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "00")
    assert trace != TRACE
    assert continue_trace(given) != continue_trace(given)


def test_the_trace_goes_with_the_request_and_into_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "dynemo.http")
    jobs: list[Job] = []

    def script(job: Job) -> list[Any]:
        jobs.append(job)
        return []

    app = make_app(FakePipeline(script))
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "a=b"}
    reply = run(Caller(app, "POST", CHAT, chat_body(n=2), headers).run())
    (line,) = caplog.records
    assert line.__dict__["trace_id"] == TRACE
    for request in jobs[0].prepared.requests:
        assert request.traceparent.startswith(f"00-{TRACE}-")
    assert not any("trace" in name for name in reply.headers)


def test_a_request_that_is_refused_has_its_trace_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "dynemo.http")
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    reply = run(Caller(make_app(FakePipeline()), "POST", CHAT, b"{", headers).run())
    assert reply.status == 400
    (line,) = caplog.records
    assert line.__dict__["trace_id"] == TRACE
