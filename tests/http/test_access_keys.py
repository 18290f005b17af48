"""API keys: which requests need one, what a key may do, and the file of keys."""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dynemo.errors import Overloaded, UsageError
from dynemo.http.access.access import Access
from dynemo.http.access.key_file import read_key_file
from dynemo.http.access.keys import Keys
from dynemo.http.access.share import KeyRules, Share
from dynemo.http.app import App, build_app
from dynemo.http.bound_server import BoundServer
from dynemo.http.server import bind
from support.asgi_client import CHAT, Caller, Reply, call, chat_body, make_app
from support.fake_pipeline import FakePipeline, say
from support.waiting import until

ADMIN = {"authorization": "Bearer sk-admin"}


def make_file(folder: Path, *lines: str) -> Path:
    file = folder / "keys"
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o600)
    return file


def make_keyed(*given: str, file: Path | None = None, pipeline: FakePipeline | None = None) -> App:
    return make_app(pipeline or FakePipeline(), Access(keys=Keys(given, file)))


def get(app: App, path: str, headers: dict[str, str] | None = None) -> Reply:
    return asyncio.run(call(app, "GET", path, headers=headers))


def post(app: App, headers: dict[str, str] | None = None, **fields: object) -> Reply:
    return asyncio.run(call(app, "POST", CHAT, chat_body(**fields), headers))


def test_every_path_but_probes_and_the_page_needs_a_key() -> None:
    app = make_keyed("sk-admin")
    for path in ("/v1/models", "/v1/models/demo", "/metrics", "/openapi.json", "/v1/nothing", "/x"):
        reply = get(app, path)
        assert reply.status == 401
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.json["error"]["code"] == "invalid_api_key"
        assert get(app, path, ADMIN).status != 401
    assert post(app).status == 401
    assert post(app, ADMIN).status == 200
    for path in ("/live", "/health", "/"):
        assert get(app, path).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer sk-admin"},
        {"authorization": "bearer  sk-admin "},
        {"x-api-key": "sk-admin"},
        {"authorization": "Basic YTpi", "x-api-key": "sk-admin"},
        {"authorization": "Bearer none", "x-api-key": "sk-admin"},
        {"authorization": "Bearer sk-other"},
    ],
)
def test_a_key_comes_as_bearer_or_in_x_api_key(headers: dict[str, str]) -> None:
    assert get(make_keyed("sk-admin", "sk-other"), "/v1/models", headers).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "sk-admin"},
        {"authorization": "Basic sk-admin"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer sk-admi"},
        {"authorization": "Bearer sk-admin2"},
        {"authorization": "Bearer SK-ADMIN"},
        {"x-api-key": ""},
        {"api-key": "sk-admin"},
        {"authorization": "Bearer sk-ad\xadmin"},
    ],
)
def test_anything_else_is_no_key(headers: dict[str, str]) -> None:
    assert get(make_keyed("sk-admin"), "/v1/models", headers).status == 401


def test_a_stranger_learns_of_no_model() -> None:
    app = make_keyed("sk-admin")
    assert get(app, "/health").json["models"] == []
    assert b"fake 1.2" not in get(app, "/").body
    assert len(get(app, "/health", ADMIN).json["models"]) == 2


def test_a_key_knows_its_models_alone(tmp_path: Path) -> None:
    file = make_file(tmp_path, "sk-a name=alice models=org/other,none", "sk-b")
    app = make_keyed(file=file)
    alice, bob = {"x-api-key": "sk-a"}, {"x-api-key": "sk-b"}
    assert [m["id"] for m in get(app, "/v1/models", alice).json["data"]] == ["org/other"]
    assert len(get(app, "/v1/models", bob).json["data"]) == 2
    assert [m["id"] for m in get(app, "/health", alice).json["models"]] == ["org/other"]
    hidden, unknown = get(app, "/v1/models/demo", alice), get(app, "/v1/models/no", alice)
    assert hidden.status == unknown.status == 404
    assert hidden.body.replace(b"demo", b"no") == unknown.body
    assert post(app, alice, model="org/other").status == 200
    refused, missing = post(app, alice, model="demo"), post(app, alice, model="no")
    assert refused.status == missing.status == 404
    assert refused.body.replace(b"demo", b"no") == missing.body
    assert post(app, bob, model="demo").status == 200


def test_requests_a_minute_and_their_retry_after(tmp_path: Path) -> None:
    app = make_keyed("sk-admin", file=make_file(tmp_path, "sk-a name=alice rpm=2", "sk-c rpm=1"))
    alice = {"x-api-key": "sk-a"}
    assert [post(app, alice).status for _ in range(3)] == [200, 200, 429]
    reply = post(app, alice)
    assert 28 <= int(reply.headers["retry-after"]) <= 30
    assert reply.json["error"]["code"] == "overloaded"
    assert "2 requests a minute" in reply.json["error"]["message"]
    assert get(app, "/v1/models", alice).status == 200
    assert post(app, ADMIN).status == 200
    assert post(app, {"x-api-key": "sk-c"}).status == 200


def test_tokens_a_minute_count_prompt_and_answer(tmp_path: Path) -> None:
    """Each answer of the pipeline has 7 + 3 tokens."""
    app = make_keyed(file=make_file(tmp_path, "sk-a tpm=12"))
    statuses = [post(app, {"x-api-key": "sk-a"}).status for _ in range(3)]
    assert statuses == [200, 200, 429]  # the second one goes into debt: 12 - 20 tokens
    assert 43 <= int(post(app, {"x-api-key": "sk-a"}).headers["retry-after"]) <= 45


def test_requests_at_once(tmp_path: Path) -> None:
    pipeline = FakePipeline([0.2, *say("a")])
    app = make_keyed(file=make_file(tmp_path, "sk-a concurrency=1"), pipeline=pipeline)

    async def scenario() -> None:
        alice = {"x-api-key": "sk-a"}
        task = asyncio.create_task(Caller(app, "POST", CHAT, chat_body(), alice).run())
        await until(lambda: pipeline.running == 1)
        second = await call(app, "POST", CHAT, chat_body(), alice)
        assert (second.status, second.headers["retry-after"]) == (429, "1")
        assert (await task).status == 200
        assert (await call(app, "POST", CHAT, chat_body(), alice)).status == 200

    asyncio.run(scenario())


def test_a_share_fills_all_the_time() -> None:
    now = 0.0

    def clock() -> float:
        return now

    def waits() -> int:
        try:
            with share.asking():
                return 0
        except Overloaded as error:
            return error.retry_after

    share = Share(KeyRules("a", requests=6, tokens=600), clock)
    assert [waits() for _ in range(7)] == [0] * 6 + [10]
    now = 9.5
    assert waits() == 1
    now = 10.0
    assert [waits(), waits()] == [0, 10]
    now = 1000.0
    share.spend(1800)  # three minutes' worth, of which one was there
    assert waits() == 121
    now = 1121.0
    assert waits() == 0


def test_usage_is_counted_by_the_name_of_the_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dynemo.http")
    app = make_keyed("sk-admin", file=make_file(tmp_path, "sk-a name=alice", "sk-a2 name=alice"))
    for key in ("sk-a", "sk-a2"):
        assert post(app, {"x-api-key": key}).status == 200
    text = get(app, "/metrics", ADMIN).body.decode()
    assert 'dynemo_key_requests_total{key="alice",model="demo"} 2.0' in text
    assert 'dynemo_key_input_tokens_total{key="alice",model="demo"} 14.0' in text
    assert 'dynemo_key_output_tokens_total{key="alice",model="demo"} 6.0' in text
    assert [line.__dict__["key"] for line in caplog.records] == ["alice", "alice"]
    assert "sk-" not in text + caplog.text


def test_the_file_is_read_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dynemo.http.access.keys._LOOK_SECONDS", 0.0)
    file = make_file(tmp_path, "sk-a name=alice rpm=1", "sk-b")
    app = make_keyed("sk-admin", file=file)

    def status(key: str) -> int:
        return post(app, {"x-api-key": key}).status

    assert [status("sk-a"), status("sk-a"), status("sk-b")] == [200, 429, 200]
    make_file(tmp_path, "sk-a name=alice rpm=1", "sk-c-new")
    assert [status("sk-b"), status("sk-c-new"), status("sk-admin")] == [401, 200, 200]
    assert status("sk-a") == 429  # its use is remembered
    caplog.clear()
    for lines in (["sk-c-new", "sk-bad rpm=0"], [""]):
        make_file(tmp_path, *lines)
        assert [status("sk-c-new"), status("sk-bad"), status("sk-c-new")] == [200, 401, 200]
    file.unlink()
    assert [status("sk-c-new"), status("sk-c-new")] == [200, 200]
    errors = [line.getMessage() for line in caplog.records if line.levelname == "ERROR"]
    assert len(errors) == 3
    assert "has a bad line 2: rpm takes a whole number from 1 up" in errors[0]
    assert all("The keys from before remain in use." in error for error in errors)
    assert "sk-" not in caplog.text
    make_file(tmp_path, "sk-d")
    assert [status("sk-c-new"), status("sk-d")] == [401, 200]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["# none", ""], "holds no key"),
        (["sk-a", "", "name=alice sk-secret"], "bad line 3: it starts with a field"),
        (["alice sk-secret"], "bad line 1: after the key, it has name, models"),
        (["sk-a rmp=5"], "bad line 1: after the key"),
        (["sk-a rpm=5 rpm=6"], "bad line 1: after the key"),
        (["sk-a rpm=-5"], "rpm takes a whole number from 1 up"),
        (["sk-a tpm=1.5"], "tpm takes"),
        (["sk-a concurrency=0"], "concurrency takes"),
        (["sk-a tpm=99999999999999"], "tpm takes"),
        (["sk-a models=,"], "models takes names"),
        (["sk-a name="], "a name has"),
        (["sk-a name=al\"ice"], "a name has"),
        (["sk-ä"], "a key has up to 512 ASCII characters"),
        (["sk-" + "a" * 600], "a key has up to 512"),
        (["sk-a name=alice", "sk-a name=bob"], "repeats the key of alice for bob"),
        (["sk-a name=al rpm=1", "sk-b name=al rpm=2"], "other limits or models for each key of al"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_sentence(tmp_path: Path, lines: list[str], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_key_file(make_file(tmp_path, *lines))
    text = str(caught.value)
    assert says in text
    assert text.startswith("The file of --api-key-file, ")
    assert "secret" not in text
    assert "sk-" not in text


def test_a_line_ends_where_people_see_its_end(tmp_path: Path) -> None:
    file = make_file(tmp_path, "# old\u2028sk-old", "# old\x0bsk-older", "sk-1\rsk-2\r", "sk-3")
    assert [key.text for key in read_key_file(file)] == ["sk-1", "sk-2", "sk-3"]


def test_what_is_no_file_of_keys(tmp_path: Path) -> None:
    fifo, binary, big = tmp_path / "fifo", tmp_path / "binary", tmp_path / "big"
    os.mkfifo(fifo)
    binary.write_bytes(b"\xff\xfe\x00")
    big.write_text("#" * 5_000_000)
    for path in (tmp_path / "missing", tmp_path, fifo, Path("/dev/zero"), binary, big):
        with pytest.raises(UsageError, match=r"The file of --api-key-file"):
            read_key_file(path)


def test_a_file_that_others_may_read_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = make_file(tmp_path, "sk-a")
    Keys([], file)
    assert not caplog.records
    file.chmod(0o644)
    Keys([], file)
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize("text", ["a b", "a\nb", "ä", "a" * 600])
def test_a_key_that_no_header_can_hold(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Keys([text], None)
    assert text not in str(caught.value)


def test_a_preflight_needs_no_key() -> None:
    headers = {"origin": "http://localhost:1", "access-control-request-method": "POST"}
    reply = asyncio.run(call(make_keyed("sk-admin"), "OPTIONS", CHAT, headers=headers))
    assert reply.status == 200
    refused = post(make_keyed("sk-admin"), {"origin": "http://localhost:1"})
    assert refused.status == 401
    assert refused.headers["access-control-allow-origin"] == "http://localhost:1"


def test_metrics_on_a_port_of_their_own() -> None:
    with bind("127.0.0.1", 0) as first, bind("127.0.0.1", 0) as second:
        metrics = BoundServer(second, Access())
        server = BoundServer(first, Access(keys=Keys(["sk-admin"], None)), metrics=metrics)
        app, other = build_app(FakePipeline(), server)
    assert other is not None
    assert post(app, ADMIN).status == 200
    assert b'key="key-1"' in get(other, "/metrics").body
    assert get(other, "/health").status == 200
    assert get(other, "/v1/models").status == 404
    assert get(app, "/metrics").status == 401
    assert get(app, "/metrics", ADMIN).status == 404


def test_the_client_names_the_key_and_not_the_address() -> None:
    find: Callable[..., object] = Keys(["sk-admin"], None).find
    client = find({"headers": [(b"x-api-key", b"sk-admin")], "client": ("1.2.3.4", 5)})
    assert client is not None
    assert "sk-admin" not in repr(client)
    assert "key-1" in repr(client)


def test_each_key_has_a_salt_of_its_own() -> None:
    find = Keys(["sk-a", "sk-b"], None).find
    again = Keys(["sk-b"], None).find  # another ingress of the same pool
    a, b = (find({"headers": [(b"x-api-key", key)]}) for key in (b"sk-a", b"sk-b"))
    other = again({"headers": [(b"x-api-key", b"sk-b")]})
    assert a is not None
    assert b is not None
    assert other is not None
    assert a.cache_salt != b.cache_salt == other.cache_salt
    assert a.cache_salt
    assert "sk-" not in a.cache_salt
