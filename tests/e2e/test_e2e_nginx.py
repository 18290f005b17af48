"""The page and a client behind a real nginx, as `docs/http.md` shows it."""

from pathlib import Path

import httpx2
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from support.authority import Authority
from support.browser import chat
from support.command import serving
from support.nginx import nginx

EVIL = """<script>
const send = (headers) => fetch("TARGET/v1/chat/completions", {
  method: "POST", headers, body: '{"messages": [{"role": "user", "content": "a"}]}',
}).then((r) => r.text(), (e) => "failed");
Promise.all([send({"Content-Type": "text/plain"}), send({"X-Dynemo-Page": "1"})])
  .then((all) => { document.title = all.join(); });
</script>"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("has_tls", [False, True], ids=["http", "https"])
def test_the_page_works_behind_a_bare_proxy_pass(
    browser: Chrome, authority: Authority, tmp_path: Path, has_tls: bool
) -> None:
    cert = authority.issue("public", "DNS:public.example") if has_tls else None
    with serving() as server, nginx(server.url, tmp_path / "nginx", cert=cert) as port:
        where = f"{'https' if has_tls else 'http'}://public.example:{port}"
        browser.get(where)
        assert "Pretoria." in chat(browser)
        assert f"curl {where}/v1/chat" in browser.find_element(By.TAG_NAME, "body").text


@pytest.mark.timeout(60)
def test_the_page_works_behind_a_proxy_that_passes_the_host(
    browser: Chrome, tmp_path: Path
) -> None:
    lines = "proxy_set_header Host $host;"
    with (
        serving("--allowed-host", "public.example") as server,
        nginx(server.url, tmp_path / "nginx", proxy=lines) as port,
    ):
        browser.get(f"http://public.example:{port}")
        assert "Pretoria." in chat(browser)
        answer = httpx2.get(f"http://127.0.0.1:{port}/v1/models", headers={"host": "evil.example"})
        assert answer.status_code == 403


@pytest.mark.timeout(60)
def test_a_page_of_another_site_gets_nothing(browser: Chrome, tmp_path: Path) -> None:
    page = tmp_path / "evil.html"
    with serving() as server, nginx(server.url, tmp_path / "nginx") as port:
        for target in (server.url, f"http://public.example:{port}"):
            page.write_text(EVIL.replace("TARGET", target))
            browser.get(f"file://{page}")
            title = ""
            while not title:
                title = browser.execute_script("return document.title")
            assert title == "failed,failed"
        metrics = httpx2.get(f"{server.url}/metrics").text
        assert 'dynemo_requests_total{model="demo"' not in metrics
