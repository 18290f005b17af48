"""The page at `/`, in a real browser."""

from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from support.browser import chat
from support.command import serving


@pytest.mark.timeout(60)
def test_a_person_reads_the_page_and_chats_on_it(browser: Chrome) -> None:
    with serving() as server:
        browser.get(server.url)
        text = browser.find_element(By.TAG_NAME, "body").text
        for word in ("demo", "llama_cpp", "4,096 tokens", f"curl {server.url}/v1/chat/completions"):
            assert word in text
        box = browser.find_element(By.ID, "text")
        box.send_keys("What is the capital of South Africa?", Keys.ENTER)
        wait = WebDriverWait(browser, 20)
        wait.until(lambda b: "Pretoria." in b.find_element(By.ID, "talk").text)
        wait.until(lambda b: b.find_element(By.ID, "send").is_enabled())
        box.send_keys("And France?", Keys.ENTER)
        wait.until(lambda b: len(b.find_elements(By.CSS_SELECTOR, "#talk .assistant")) == 2)
        wait.until(lambda b: b.find_element(By.ID, "send").is_enabled())
        assert not browser.find_elements(By.CSS_SELECTOR, "#talk .failed")
        said: list[dict[str, str]] = browser.get_log("browser")  # type: ignore[no-untyped-call]
        assert not [entry for entry in said if entry["level"] == "SEVERE"]


@pytest.mark.timeout(60)
def test_the_page_asks_for_the_key(browser: Chrome, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("sk-right name=alice\n")
    with serving("--api-key-file", file) as server:
        browser.get(server.url)
        wait = WebDriverWait(browser, 20)
        box = browser.find_element(By.ID, "key")
        wait.until(lambda _: box.is_displayed())
        assert "llama_cpp" not in browser.find_element(By.TAG_NAME, "body").text
        box.send_keys("sk-wrong", Keys.ENTER)
        wait.until(lambda b: "not know" in b.find_element(By.ID, "unlock-problem").text)
        box.clear()
        box.send_keys("sk-right", Keys.ENTER)
        wait.until(lambda _: not box.is_displayed())
        wait.until(lambda b: "llama_cpp" in b.find_element(By.ID, "models").text)
        assert "Pretoria." in chat(browser)
        browser.refresh()  # the tab remembers the key
        wait.until(lambda b: "llama_cpp" in b.find_element(By.ID, "models").text)
        assert "Pretoria." in chat(browser)
        assert any(" key=alice " in line for line in server.lines)
        assert not any("sk-" in line for line in server.lines)
