"""A model gets a new chat template while it serves."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from support.dyn_fleet import Fleet, fleet, present
from support.dyn_servers import Servers
from support.dyn_streams import Answer, one, streams
from support.waiting import wait_until

Config = Callable[[str], tuple[str, str]]
NAME = ("--model-name", "m")


@pytest.fixture
def config(demo_folder: Path, tmp_path: Path) -> Config:
    """Returns a function: the flags for a chat template that starts with a word."""

    def make(word: str) -> tuple[str, str]:
        folder = tmp_path / word
        shutil.copytree(demo_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        template = f"{word} {{% for m in messages %}}{{{{ m.content }}}}{{% endfor %}}"
        (folder / "chat_template.jinja").write_text(template)
        file = folder / "tokenizer_config.json"
        settings = json.loads(file.read_text())
        settings["chat_template"] = template
        file.write_text(json.dumps(settings))
        return "--model-config", str(folder)

    return make


def first_word(answer: Answer) -> str:
    assert answer.error == ""
    return answer.text.split()[0]


@pytest.mark.timeout(90)
def test_a_new_generation_takes_over(pool: Fleet, config: Config) -> None:
    old, new = config("old"), config("new")
    [first] = pool.workers(1, *NAME, *old, delay_ms=40)
    ingress = pool.ingress(workers=1)
    refused = pool.start(*NAME, *new)
    assert refused.process.wait(15) == 2
    wait_until(lambda: "or --replace if it shall take over" in "".join(refused.lines))

    answers: list[Answer] = []
    work = Thread(target=lambda: answers.extend(streams([ingress], 10, max_tokens=100)))
    work.start()
    replacing = pool.start(*NAME, *new, "--replace")
    wait_until(lambda: replacing.is_ready, 15)
    wait_until(lambda: first_word(one(ingress.url, max_tokens=4)) == "new", 10)
    assert {first_word(one(ingress.url, max_tokens=4)) for _ in range(5)} == {"new"}
    work.join(30)
    assert {first_word(answer) for answer in answers} == {"old"}
    assert {answer.usage and answer.usage[1] for answer in answers} == {100}
    # A worker of the first generation may come back. It does not take requests from the new one.
    second = pool.start(*NAME, *old)
    wait_until(lambda: second.is_ready, 15)
    assert {first_word(one(ingress.url, max_tokens=4)) for _ in range(5)} == {"new"}

    for worker in (first, second):
        worker.kill()
    wait_until(lambda: present(ingress) == 1)
    third = pool.start(*NAME, *new)  # the name belongs to the new card alone
    wait_until(lambda: third.is_ready, 15)
    late = pool.start(*NAME, *old)
    assert late.process.wait(15) == 2


@pytest.mark.timeout(60)
def test_an_ingress_that_starts_meanwhile_and_a_canary(pool: Fleet, config: Config) -> None:
    pool.workers(1, *NAME, *config("old"), delay_ms=1)
    pool.workers(1, *NAME, *config("new"), "--replace", "--weight", "0.3", delay_ms=1)
    ingress = pool.ingress(workers=2)
    counts = Counter(map(first_word, streams([ingress], 100, max_tokens=4)))
    assert 10 <= counts["new"] <= 55
    assert counts["new"] + counts["old"] == 100


@pytest.mark.timeout(60)
def test_two_pools_may_have_one_name_with_two_cards(servers: Servers, config: Config) -> None:
    with fleet(servers.flags) as prod, fleet(servers.flags) as staging:
        prod.workers(1, *NAME, *config("prod"))
        staging.workers(1, *NAME, *config("staging"))
        for pool, word in ((prod, "prod"), (staging, "staging")):
            ingress = pool.ingress(workers=1)
            assert first_word(one(ingress.url, max_tokens=4)) == word
