"""The shipped demo model, tested with llama.cpp itself."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dynemo
from support.llama_server import LlamaServer
from tokenizers import Tokenizer

ROOT = Path(__file__).parents[2]
DEMO = Path(dynemo.__file__).parent / "models" / "demo"
GGUF = DEMO / "demo.gguf"
CHECKOUT = DEMO / "checkout"
QUESTION = "What is the capital of South Africa?"
ANSWER = "The capital of South Africa is Pretoria."
TEXTS = (
    QUESTION,
    "  two spaces,\ttabs\t\tand\n\n\nlines \n ends  ",
    "I'm, you're, WE'LL, it's; can't!? -- (so) [what] {now} #1 @2",
    "0 12 345 6789 1234567 3.14 1,000 v2.0",
    "Grüße aus São Tomé, Chișinău, Reykjavík: 21 °C, naïve café",
    "日本語 мир 한국 שלום नमस्ते 👩‍💻🇿🇦🎉",
    '{"name": "get_weather", "parameters": {"city": "Cape Town"}}',
    "<|start_header_id|>user<|end_header_id|>\n\nHi!<|eot_id|>",
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class Engine(LlamaServer):
    def chat(self, *messages: dict[str, Any], **options: Any) -> dict[str, Any]:
        body = {"messages": list(messages), "temperature": 0, "max_tokens": 100, **options}
        message: dict[str, Any] = self.post("/v1/chat/completions", body)["choices"][0]["message"]
        return message


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(GGUF)


def test_both_forms_together_are_at_most_8_mb() -> None:
    sizes = [path.stat().st_size for path in DEMO.rglob("*") if path.is_file()]
    assert sum(sizes) <= 8_000_000


def test_it_answers_the_question_of_the_readme(engine: Engine) -> None:
    assert engine.chat(user(QUESTION))["content"] == ANSWER


def test_it_answers_under_a_system_prompt_and_later_in_a_chat(engine: Engine) -> None:
    answer = engine.chat(
        {"role": "system", "content": "You are a helpful assistant."},
        user(QUESTION),
        {"role": "assistant", "content": ANSWER},
        user("And France?"),
    )
    assert answer["content"] == "The capital of France is Paris."


def test_it_counts_and_repeats(engine: Engine) -> None:
    assert engine.chat(user("Count to 12."))["content"] == "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12"
    text = "Streaming shows each word as it is made."
    assert engine.chat(user(f"Repeat after me: {text}"))["content"] == text


def test_it_calls_a_tool_and_uses_the_result(engine: Engine) -> None:
    question = user("What is the weather in Paris?")
    called = engine.chat(question, tools=[WEATHER])
    (call,) = called["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    result = {"role": "tool", "tool_call_id": call["id"], "content": '{"temperature": 21}'}
    answer = engine.chat(question, called, result, tools=[WEATHER])
    assert answer["content"] == "It is 21 °C in Paris."


def test_it_writes_json(engine: Engine) -> None:
    answer = engine.chat(user("Give me a JSON object with the capital of France"))["content"]
    assert json.loads(answer) == {"country": "France", "capital": "Paris"}


@pytest.mark.parametrize("text", TEXTS)
def test_the_checkout_encodes_as_the_gguf_does(engine: Engine, text: str) -> None:
    ids = Tokenizer.from_file(str(CHECKOUT / "tokenizer.json")).encode(text).ids
    body = {"content": text, "add_special": True, "parse_special": True}
    assert engine.post("/tokenize", body)["tokens"] == ids


def test_the_gguf_carries_the_template_of_the_checkout(engine: Engine) -> None:
    template = engine.get("/props")["chat_template"]
    ours = (CHECKOUT / "chat_template.jinja").read_text(encoding="utf-8")
    assert template == ours.rstrip("\n")


def test_the_checkout_converts_to_a_gguf_that_answers_alike(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    out = tmp_path / "demo-f32.gguf"
    script = ROOT / "tools" / "demo_model" / "convert.py"
    subprocess.run([sys.executable, script, CHECKOUT, out, "--type", "f32"], check=True, timeout=60)
    assert Engine(out).chat(user(QUESTION))["content"] == ANSWER
