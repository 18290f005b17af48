"""The subcommands with the demo model."""

import json
from pathlib import Path

from support.command import run

CHAT = [{"role": "user", "content": "hi"}]


def test_render_prints_the_prompt_that_the_engine_would_get(tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(CHAT))
    done = run("render", "demo", "--messages", file)
    assert done.returncode == 0
    assert done.stdout.startswith("<|begin_of_text|>")
    ids = json.loads(run("render", "demo", "--messages", file, "--ids").stdout)
    lines = tmp_path / "ids.jsonl"
    lines.write_text(json.dumps({"ids": ids}))
    [line] = run("detokenize", "demo", lines).stdout.splitlines()
    assert "hi" in "".join(json.loads(line)["deltas"])


def test_render_takes_the_tokenizer_of_another_checkout(
    demo: Path, demo_folder: Path, tmp_path: Path
) -> None:
    chat = tmp_path / "chat.json"
    chat.write_text(json.dumps(CHAT))
    source = tmp_path / "source"
    source.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).write_bytes((demo_folder / name).read_bytes())
    (source / "chat_template.jinja").write_text("{{ messages[0]['content'] }}, said in short")
    done = run("render", demo, "--messages", chat, "--model-config", source)
    assert (done.returncode, done.stdout) == (0, "hi, said in short\n")
    fidelity = Path(__file__).parents[1] / "fidelity"
    (source / "tokenizer.json").write_bytes((fidelity / "tokenizer_byte_level.json").read_bytes())
    done = run("render", demo, "--messages", chat, "--model-config", source)
    assert (done.returncode, "so it belongs to another model" in done.stderr) == (2, True)


def test_render_many_continues_after_a_bad_line(tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text(
        json.dumps({"messages": CHAT}) + "\nnonsense\n" + json.dumps({"messages": CHAT})
    )
    done = run("render", "demo", "--messages", file)
    one, bad, two = map(json.loads, done.stdout.splitlines())
    assert one == two
    assert set(one) == {"prompt", "token_ids"}
    assert "Line 2" in bad["error"]


def test_a_checkout_and_a_gguf_of_one_model_give_the_same_ids(
    demo_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "texts.jsonl"
    texts = ["Hello, world!", "1, 2, 3", "São Tomé 😀", "a\n\n  b", "<|eot_id|>"]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    of_gguf = run("tokenize", "demo", file)
    of_checkout = run("tokenize", demo_folder, file)
    assert of_gguf.stdout == of_checkout.stdout
    assert len(of_gguf.stdout.splitlines()) == len(texts)


def test_a_command_s_own_mistakes_are_one_sentence() -> None:
    for args in (["render"], ["tokenize", "demo"], ["completion", "tcsh"], ["render", "nowhere"]):
        done = run(*args)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_completion_knows_every_shell() -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "--http-port" in run("completion", shell).stdout.replace(
            "-l http-port", "--http-port"
        )
