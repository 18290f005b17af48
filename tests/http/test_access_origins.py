"""The pages that may send requests, and the answers that they may read."""

import asyncio

import pytest

from dynemo.http.access.access import Access
from dynemo.http.access.hosts import hosts_of
from dynemo.http.access.origins import origins_of, parse_origin
from support.asgi_client import CHAT, Reply, call, chat_body, make_app
from support.fake_pipeline import FakePipeline

EVIL = "https://evil.example"


def access(*origins: str, hosts: tuple[str, ...] = ()) -> Access:
    return Access(hosts_of("127.0.0.1", "127.0.0.1", hosts), origins_of(origins))


def post(given: Access, path: str = CHAT, body: bytes = chat_body(), **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return asyncio.run(call(make_app(FakePipeline(), given), "POST", path, body, named))


def preflight(given: Access, origin: str, path: str = CHAT, **headers: str) -> Reply:
    named = {
        "origin": origin,
        "access-control-request-method": "POST",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return asyncio.run(call(make_app(FakePipeline(), given), "OPTIONS", path, b"", named))


@pytest.mark.parametrize(
    ("named", "origin"),
    [
        ((), "http://localhost:3000"),
        ((), "https://127.0.0.1"),
        ((), "http://[::1]:5173"),
        ((), "http://app.localhost:1"),
        (("https://chat.example",), "https://chat.example"),
        (("https://chat.example:443/",), "https://chat.example"),
        (("HTTPS://Chat.Example",), "https://chat.example"),
        (("a://", "https://chat.example:8443"), "https://chat.example:8443"),
        (("app://",), "app://obsidian.md"),
        (("app://*",), "app://-"),
        (("tauri://localhost",), "tauri://localhost"),
        (("vscode-webview://",), "vscode-webview://1rh0fqvnbkp"),
        (("chrome-extension://abcdef",), "chrome-extension://abcdef"),
        (("file://",), "file://"),
        (("null",), "null"),
        (("*",), EVIL),
        (("*",), "null"),
    ],
)
def test_an_allowed_origin_may_ask_and_read(named: tuple[str, ...], origin: str) -> None:
    reply = post(access(*named), origin=origin)
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == origin
    assert reply.headers["access-control-expose-headers"] == "x-request-id, retry-after"
    assert reply.headers["vary"] == "Origin"
    assert preflight(access(*named), origin).status == 200


@pytest.mark.parametrize(
    ("named", "origin"),
    [
        ((), EVIL),
        ((), "null"),
        ((), "file://"),
        ((), "app://localhost"),
        ((), "http://localhost.evil.example"),
        ((), "http://localhost:80:80"),
        ((), "http://localhost@evil.example"),
        ((), "localhost"),
        (("https://chat.example",), "http://chat.example"),
        (("https://chat.example",), "https://chat.example:8443"),
        (("https://chat.example",), "https://a.chat.example"),
        (("https://chat.example",), "http://localhost:3000"),
        (("app://",), "application://x"),
        (("chrome-extension://abcdef",), "chrome-extension://abcdeg"),
    ],
)
def test_any_other_origin_is_refused(named: tuple[str, ...], origin: str) -> None:
    for reply in (
        post(access(*named), origin=origin),
        post(access(*named), origin=origin, sec_fetch_site="cross-site"),
        post(access(*named), origin=origin, sec_fetch_site="same-site"),
        preflight(access(*named), origin),
        preflight(access(*named), origin, access_control_request_headers="x-dynemo-page"),
    ):
        assert reply.status == 403
        assert reply.json["error"]["code"] == "cross_site"
        assert "--cors-origin" in reply.json["error"]["message"]
        assert "access-control-allow-origin" not in reply.headers


def test_a_request_without_an_origin_passes() -> None:
    assert post(access()).status == 200
    assert "access-control-allow-origin" not in post(access()).headers


def test_a_page_of_this_server_passes() -> None:
    given = access("null", hosts=("chat.example",))
    host = "chat.example"
    assert post(given, host=host, origin="https://chat.example").status == 200
    assert post(given, host=f"{host}:8080", origin="http://chat.example:8080").status == 200
    assert post(given, host=host, origin="http://chat.example:8080").status == 403
    # Behind a proxy that replaces Host.
    host, origin = "127.0.0.1:8080", "https://public.example"
    assert post(given, host=host, origin=origin).status == 403
    assert post(given, host=host, origin=origin, sec_fetch_site="same-origin").status == 200
    assert post(given, host=host, origin=origin, x_dynemo_page="1").status == 200


def test_a_preflight_says_what_a_page_may_send() -> None:
    names = "authorization, content-type,x-stainless-lang, x-api-key , bad name, a\tb"
    reply = preflight(
        access(),
        "http://localhost:3000",
        access_control_request_headers=names,
        access_control_request_private_network="true",
    )
    assert reply.status == 200
    assert reply.body == b""
    assert reply.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert reply.headers["access-control-allow-methods"] == "GET, HEAD, POST"
    allowed = reply.headers["access-control-allow-headers"]
    assert allowed == "authorization, content-type, x-stainless-lang, x-api-key"
    assert reply.headers["access-control-allow-private-network"] == "true"
    assert int(reply.headers["access-control-max-age"]) > 0
    assert reply.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in reply.headers


def test_options_without_a_question_is_another_method() -> None:
    app = make_app(FakePipeline())
    reply = asyncio.run(call(app, "OPTIONS", CHAT, headers={"origin": "http://localhost"}))
    assert (reply.status, reply.headers["allow"]) == (405, "POST")


def test_pages_can_read_errors_and_streams() -> None:
    origin = "http://localhost:3000"
    for reply in (
        post(access(), origin=origin, body=chat_body(stream=True)),
        post(access(), origin=origin, body=b"{"),
        post(access(), origin=origin, body=chat_body(model="no")),
        post(access(), origin=origin, path="/v1/nothing"),
    ):
        assert reply.headers["access-control-allow-origin"] == origin


def test_two_origins_are_a_bad_request() -> None:
    headers = [("host", "localhost"), ("origin", "http://localhost"), ("origin", EVIL)]
    reply = asyncio.run(call(make_app(FakePipeline()), "POST", CHAT, chat_body(), headers))
    assert reply.status == 400


@pytest.mark.parametrize(
    "text", ["chat.example", "https://", "https://a b", "https://x/y", "", "//x"]
)
def test_what_names_no_origin(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_origin(text)
