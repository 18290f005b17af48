"""Keys, HTTPS and names of a server that is started as a user starts it."""

import ssl
import subprocess
from pathlib import Path

import httpx2
import openai
import pytest

from support.authority import Authority
from support.command import run, serving

BODY = {"model": "demo", "max_tokens": 2, "messages": [{"role": "user", "content": "a"}]}
WARNING = "answers everybody who can reach it"


def test_keys_from_a_variable_and_over_https(authority: Authority) -> None:
    ours = authority.issue("server")
    tls = ("--tls-cert-path", ours / "tls.crt", "--tls-key-path", ours / "tls.key")
    with serving("out=echo", "-vv", *tls, DYNEMO_API_KEY="sk-one,sk-two") as server:
        assert server.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(authority.ca))
        with httpx2.Client(verify=context) as http:
            client = openai.OpenAI(base_url=server.api, api_key="sk-two", http_client=http)
            assert client.models.list().data[0].id == "demo"
            with pytest.raises(openai.AuthenticationError) as caught:
                client.with_options(api_key="sk-none").models.list()
            assert caught.value.response.headers["www-authenticate"] == "Bearer"
        said = "\n".join(server.lines)
        assert "sk-" not in said
        assert Path(f"/proc/{server.process.pid}/cmdline").read_bytes().count(b"sk-") == 0


def test_a_server_for_others_without_a_key_says_so() -> None:
    with serving("out=echo", "--http-host", "0.0.0.0") as server:
        assert any(WARNING in line and "DYNEMO_API_KEY" in line for line in server.lines)
    for words in (["--http-host", "0.0.0.0", "--api-key", "sk-a"], []):
        with serving("out=echo", *words) as server:
            assert not any(WARNING in line for line in server.lines)


def test_metrics_have_a_port_without_a_key() -> None:
    from support.free_ports import free_port

    port = free_port()
    with serving("out=echo", "--api-key", "sk-a", "--metrics-port", str(port)) as server:
        headers = {"x-api-key": "sk-a"}
        assert httpx2.post(f"{server.api}/chat/completions", json=BODY, headers=headers).is_success
        metrics = httpx2.get(f"http://127.0.0.1:{port}/metrics")
        assert 'dynemo_key_requests_total{key="key-1",model="demo"} 1.0' in metrics.text
        assert httpx2.get(f"{server.url}/metrics").status_code == 401
        assert httpx2.get(f"http://127.0.0.1:{port}/v1/models").status_code == 404
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"http://127.0.0.1:{port}/live")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--api-key-file", "/nope"],
            'The file of --api-key-file, "/nope", cannot be read: No such',
        ),
        (["--api-key", ""], "--api-key takes a value"),
        (["--api-key", "a b"], "--api-key cannot be used: a key has up to 512 ASCII characters"),
        (["--allowed-host", "https://a.example"], "--allowed-host takes a host name"),
        (["--cors-origin", "chat.example"], "--cors-origin takes an origin such as"),
        (["--tls-cert-path", "/nope"], '"/nope" cannot be used for TLS: No such file'),
        (["--tls-key-path", "/nope"], "--tls-key-path needs --tls-cert-path"),
    ],
)
def test_a_wrong_setting_ends_the_start(words: list[str], says: str) -> None:
    done: subprocess.CompletedProcess[str] = run("in=http", "out=echo", *words)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert says in line


def test_lists_come_from_flags_variables_and_files(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('allowed_host = ["a.example", "b.example:1"]\n')
    with serving("out=echo", "--config", file) as server:
        for host, status in (("a.example", 200), ("b.example:1", 200), ("b.example", 403)):
            answer = httpx2.get(f"{server.api}/models", headers={"host": host})
            assert answer.status_code == status
    words = ["--allowed-host", "c.example", "--allowed-host", "d.example,e.example"]
    with serving("out=echo", *words) as server:
        for name in ("c", "d", "e"):
            answer = httpx2.get(f"{server.api}/models", headers={"host": f"{name}.example"})
            assert answer.status_code == 200


@pytest.mark.timeout(60)
def test_no_key_learns_what_another_has_sent(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("sk-a name=alice\nsk-b name=bob\n")
    text = "A secret that is long enough to be found again in a cache. " * 5
    body = BODY | {"messages": [{"role": "user", "content": text}]}
    with serving("--api-key-file", file) as server:

        def cached(key: str) -> int:
            headers = {"x-api-key": key}
            answer = httpx2.post(f"{server.api}/chat/completions", json=body, headers=headers)
            count: int = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
            return count

        assert cached("sk-a") == 0
        assert cached("sk-a") > 20
        assert cached("sk-b") == 0
        assert cached("sk-b") > 20
