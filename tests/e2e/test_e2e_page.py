"""The page at `/`, in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from support.command import serving

# The browser's sandbox does not work for root. The other flags prevent requests to the internet.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    options = ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    driver = Chrome(options, Service(shutil.which("chromedriver") or "chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


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
