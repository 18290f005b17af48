"""The page at `/`, in a real browser."""

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

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
