"""Files of a model that deceive, hang, or hold numbers that no model has."""

import json
import os
import random
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dynemo.errors import DynemoError, ModelError
from dynemo.limits import ADDED_TOKENS, GGUF_VALUES
from dynemo.messages.ask import text_turn
from dynemo.models.find import demo_checkout, demo_gguf, find_model
from dynemo.models.load import read_model
from dynemo.prompt.card.identity import identify
from dynemo.prompt.card.wire import pack_card, unpack_card
from dynemo.prompt.render import RenderInput, build_prompt
from support.command import run
from support.gguf_files import write_gguf

Json = Any


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(demo_checkout(), folder)
    return folder


def use(path: Path) -> None:
    """Reads a model as a run does, and prepares one prompt."""
    files = read_model(find_model(str(path)), None, None)
    card = files.card()
    unpack_card(pack_card(card))
    identify(card)
    prompt = build_prompt(
        card.template, card.tokenizer, RenderInput([text_turn("user", "Hé 😀 1")])
    )
    card.tokenizer.decode(prompt.token_ids)
    assert files.context_length >= 0


def refusal(path: Path) -> str:
    started = time.thread_time()
    with pytest.raises(ModelError) as caught:
        use(path)
    assert time.thread_time() - started < 5
    return str(caught.value)


def edit(file: Path, change: Callable[[Json], None]) -> None:
    value = json.loads(file.read_text(encoding="utf-8"))
    change(value)
    file.write_text(json.dumps(value), encoding="utf-8")


FILES = [
    "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
    "tokenizer.json", "tokenizer_config.json",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_link_out_of_the_folder_is_refused(checkout: Path, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    shutil.move(checkout / name, secret) if (checkout / name).exists() else secret.write_text("{}")
    (checkout / name).symlink_to(secret)
    message = refusal(checkout)
    assert "is a link to" in message
    assert "Copy the file into the folder" in message


def test_a_folder_of_templates_elsewhere_is_refused(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (checkout / "additional_chat_templates").symlink_to(tmp_path / "other")
    assert "is a link to" in refusal(checkout)


def test_a_gguf_that_a_folder_links_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.gguf").symlink_to(demo_copy(tmp_path))
    assert "is a link to" in refusal(tmp_path / "model")


def demo_copy(folder: Path) -> Path:
    return Path(shutil.copy(demo_gguf(), folder / "real.gguf"))


def test_a_link_that_the_user_names_is_followed(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "named").symlink_to(checkout)
    use(tmp_path / "named")
    (tmp_path / "named.gguf").symlink_to(demo_copy(tmp_path))
    use(tmp_path / "named.gguf")


def test_links_of_a_snapshot_are_followed(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--org--name"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(demo_checkout().iterdir())):
        shutil.copy(file, repository / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    use(snapshot)


def test_links_into_the_cache_of_the_hub_are_followed(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub").mkdir()
    shutil.move(checkout / "model.safetensors", tmp_path / "hub" / "blob")
    (checkout / "model.safetensors").symlink_to(tmp_path / "hub" / "blob")
    use(checkout)


@pytest.mark.parametrize("name", [*FILES, "extra.bin", "modeling_x.py"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "link to a device"])
def test_only_regular_files_are_read(tmp_path: Path, checkout: Path, name: str, kind: str) -> None:
    path = checkout / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            short = f"/proc/self/fd/{(folder := os.open(checkout, os.O_RDONLY))}/{name}"
            made.bind(short)
            os.close(folder)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    if kind == "folder" and name not in ("model.safetensors", "tokenizer.json", "config.json"):
        return  # these files may be missing
    assert name in refusal(checkout)


CONFIGS: dict[str, Callable[[Json], None]] = {
    "a context of 1e30": lambda c: c.update(max_position_embeddings=10**30),
    "a context of 2**63": lambda c: c.update(max_position_embeddings=2**63),
    "a vocabulary of 1e12": lambda c: c.update(vocab_size=10**12),
    "an EOS id of 2**70": lambda c: c.update(eos_token_id=2**70),
    "a list with an EOS id of 2**70": lambda c: c.update(eos_token_id=[2, 2**70]),
    "a RoPE factor of NaN": lambda c: c.update(rope_scaling=rope(float("nan"))),
    "an endless RoPE factor": lambda c: c.update(rope_scaling=rope(float("inf"))),
    "a RoPE factor below 0": lambda c: c.update(rope_scaling=rope(-2)),
    "a huge RoPE factor": lambda c: c.update(rope_scaling=rope(1e300)),
    "a RoPE factor of many digits": lambda c: c.update(rope_scaling=rope(10**4000)),
    "a huge yarn": lambda c: c.update(
        rope_scaling={**rope(4), "original_max_position_embeddings": 10**400, "rope_type": "yarn"}
    ),
    "many layers": lambda c: c.update(num_hidden_layers=10**40),
}


def rope(factor: float) -> Json:
    return {"rope_type": "linear", "factor": factor}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_number_that_no_model_has_is_refused(checkout: Path, name: str) -> None:
    def change(config: Json) -> None:
        config.pop("rope_parameters", None)
        CONFIGS[name](config)

    edit(checkout / "config.json", change)
    assert "config.json" in refusal(checkout)


def test_sampling_settings_that_are_no_numbers_are_refused(checkout: Path) -> None:
    (checkout / "generation_config.json").write_text('{"temperature": NaN}')
    assert "temperature" in refusal(checkout)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_a_file_of_a_gigabyte_is_not_read(checkout: Path, name: str) -> None:
    os.truncate(checkout / name, 1 << 30)
    assert "bytes" in refusal(checkout)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_deep_file_is_refused(checkout: Path, name: str) -> None:
    (checkout / name).write_text('{"a":' * 50_000 + "1" + "}" * 50_000)
    refusal(checkout)


@pytest.mark.parametrize("shard", ["../../etc/passwd", "/etc/passwd", "a/b", "x" * 300, ".."])
def test_an_index_names_only_files_of_its_folder(checkout: Path, shard: str) -> None:
    (checkout / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    assert "model.safetensors.index.json" in refusal(checkout)


@pytest.mark.parametrize(
    "start",
    [
        (2**63).to_bytes(8, "little") + b"{}",
        (2**64 - 1).to_bytes(8, "little") + b"{}",
        (100_000_000).to_bytes(8, "little") + b'{"a"',
        (60).to_bytes(8, "little") + b'{"a":{"data_offsets":[9,1]}}'.ljust(60),
        (60).to_bytes(8, "little") + b'{"a":{"data_offsets":[-9,-1]}}'.ljust(60),
        (90).to_bytes(8, "little") + f'{{"a":{{"data_offsets":[0,{2**70}]}}}}'.encode().ljust(90),
    ],
)
def test_a_hostile_header_of_safetensors_is_refused(checkout: Path, start: bytes) -> None:
    (checkout / "model.safetensors").write_bytes(start)
    assert "model.safetensors" in refusal(checkout)


def prepend(size: int) -> Json:
    return {"type": "Prepend", "prepend": "a" * size}


def replace(content: str) -> Json:
    return {"type": "Replace", "pattern": {"String": "a"}, "content": content}


TOKENIZERS: dict[str, Callable[[Json], None]] = {
    "a Prepend of 50 MB": lambda t: t.update(normalizer=prepend(50_000_000)),
    "a Prepend of 1 MB": lambda t: t.update(normalizer=prepend(1_000_000)),
    "a long Replace": lambda t: t.update(normalizer=replace("b" * 1000)),
    "many that double": lambda t: t.update(
        normalizer={"type": "Sequence", "normalizers": [replace("aa")] * 60}
    ),
    "a deep Sequence": lambda t: t.update(normalizer=nested(200)),
    "a million added tokens": lambda t: t.update(added_tokens=many_tokens(ADDED_TOKENS + 1)),
    "an id of 2**31": lambda t: t["model"]["vocab"].update({"new": 2**31}),
    "an id of 2**70": lambda t: t["model"]["vocab"].update({"new": 2**70}),
    "a merge of nothing": lambda t: t["model"]["merges"].append(["x", "y", "z"]),
    "a broken pattern": lambda t: t.update(pre_tokenizer=split("(((")),
}


def nested(depth: int) -> Json:
    value: Json = prepend(1)
    for _ in range(depth):
        value = {"type": "Sequence", "normalizers": [value]}
    return value


def token(token_id: int, text: str) -> Json:
    return {
        "id": token_id, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": False, "special": True,
    }  # fmt: skip


def many_tokens(count: int) -> Json:
    return [token(5000 + number, f"<|{number}|>") for number in range(count)]


def split(pattern: str) -> Json:
    return {
        "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False,
    }  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_hostile_tokenizer_is_refused(checkout: Path, name: str) -> None:
    edit(checkout / "tokenizer.json", TOKENIZERS[name])
    assert "tokenizer" in refusal(checkout)


def test_a_tokenizer_that_gives_up_refuses_the_text(checkout: Path) -> None:
    edit(checkout / "tokenizer.json", lambda t: t.update(pre_tokenizer=split("(a|aa)+c")))
    card = read_model(find_model(str(checkout)), None, None).card()
    chat = RenderInput([text_turn("user", "a" * 5000)])
    with pytest.raises(DynemoError, match="cannot split this text") as caught:
        build_prompt(card.template, card.tokenizer, chat)
    assert caught.value.status == 400


def test_thousands_of_listed_tokens_load_quickly(checkout: Path) -> None:
    listed = {
        str(5000 + n): {**token(5000 + n, f"<|{n}|>"), "special": n % 2 == 0} for n in range(0, 400)
    }
    listed |= {str(9000 + n): token(9000 + n, f"<|x{n}|>") for n in range(20_000)}
    edit(checkout / "tokenizer_config.json", lambda c: c.update(added_tokens_decoder=listed))
    started = time.thread_time()
    use(checkout)
    assert time.thread_time() - started < 15


STRINGS = ["tokenizer.ggml.model", "tokenizer.ggml.pre", "general.architecture"]
HEADER = b"GGUF" + (3).to_bytes(4, "little")


def u64(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


@pytest.mark.parametrize(
    "data",
    [
        HEADER + u64(2**63, 1),
        HEADER + u64(0, 2**63),
        HEADER + u64(0, 1, 2**63) + b"a",
        HEADER + u64(0, 1, 1) + b"a" + (9).to_bytes(4, "little") + (8).to_bytes(4, "little")
        + u64(2**63),
        HEADER + u64(0, 1, 1) + b"a" + (9).to_bytes(4, "little") + (9).to_bytes(4, "little")
        + u64(1),
        HEADER + u64(1, 0, 1) + b"a" + (2**31).to_bytes(4, "little"),
        HEADER + u64(1, 0, 1) + b"a" + (8).to_bytes(4, "little") + u64(*[2**64 - 1] * 8)
        + (0).to_bytes(4, "little") + u64(2**64 - 1),
    ],
)  # fmt: skip
def test_a_hostile_header_of_gguf_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(data)
    assert "m.gguf" in refusal(tmp_path / "m.gguf")


def test_an_array_of_billions_is_not_read(tmp_path: Path) -> None:
    count = GGUF_VALUES + 1
    data = HEADER + u64(0, 1, 1) + b"a" + (9).to_bytes(4, "little") + (0).to_bytes(4, "little")
    file = tmp_path / "m.gguf"
    file.write_bytes(data + u64(count))
    os.truncate(file, 1 << 32)
    assert "values under" in refusal(file)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tokenizer.ggml.tokens", 1),
        ("tokenizer.ggml.pre", ["a"]),
        ("tokenizer.ggml.model", ["a"]),
        ("tokenizer.ggml.token_type", "a"),
        ("tokenizer.ggml.merges", [1, 2]),
        ("llama.attention.head_count", [1, 2]),
        ("llama.context_length", 2**62),
        ("general.architecture", "\udcff"),
        ("general.sampling.temp", "\udcff"),
        ("tokenizer.chat_template", "\udcff{{"),
        ("general.alignment", 3),
    ],
)
def test_metadata_of_a_wrong_kind_is_refused_or_ignored(
    tmp_path: Path, key: str, value: object
) -> None:
    metadata = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*map(chr, range(33, 127))],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.chat_template": "{{ messages[0].content }}",
        key: value,
    }
    tensors = [("t", (1,), 0, bytes(4))]
    file = write_gguf(tmp_path / "m.gguf", metadata, tensors)
    outcome(file)


def outcome(path: Path) -> str:
    """Returns `ok`, or `refused` with a sentence. Anything else fails the test."""
    message = "Used."
    try:
        use(path)
    except DynemoError as error:
        message = str(error)
    assert message.endswith(".")
    return "ok" if message == "Used." else "refused"


#: Values that a fuzzed JSON file gets in the place of its own.
_VALUES: list[Json] = [
    None, True, -1, 0, 2**31, 2**64, 2**70, -(2**70), 1e30, float("nan"), float("inf"), "", "\0",
    "\x1b[2J", "\ud800", [], {}, [[[]]], {"a": {}}, "a" * 9999, [1] * 999, "{{", [None], [{}],
    {"type": "Replace"},
]  # fmt: skip


def _places(value: Json, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if at:
        yield at
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*at, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 5)):
            yield from _places(value[index], (*at, index))


def _mutate(value: Json, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = list(_places(value))
        if not places:
            return
        place = min(rng.sample(places, min(3, len(places))), key=len)
        holder = value
        for key in place[:-1]:
            holder = holder[key]
        if rng.random() < 0.2:
            del holder[place[-1]]
        else:
            holder[place[-1]] = rng.choice(_VALUES)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"]
)
def test_fuzzed_json(checkout: Path, name: str) -> None:
    rng = random.Random(name)
    original = (checkout / name).read_text(encoding="utf-8")
    for _ in range(60):
        value = json.loads(original)
        _mutate(value, rng)
        (checkout / name).write_text(json.dumps(value), encoding="utf-8")
        outcome(checkout)


@pytest.mark.timeout(120)
def test_fuzzed_gguf(tmp_path: Path) -> None:
    rng = random.Random(9)
    original = demo_gguf().read_bytes()
    file = tmp_path / "m.gguf"
    seen = set()
    for _ in range(200):
        data = bytearray(original)
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(4, rng.choice((64, 2000, 60_000)))
            match rng.randrange(5):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    data[at : at + 8] = rng.choice((b"\xff" * 8, bytes(8), u64(2**40), u64(10**6)))
                case 2:
                    data[at : at + 4] = rng.randrange(16).to_bytes(4, "little")
                case 3:
                    del data[at : at + rng.randrange(1, 100)]
                case _:
                    data[at:at] = rng.randbytes(rng.randrange(1, 40))
        file.write_bytes(data)
        seen.add(outcome(file))
    assert seen == {"ok", "refused"}


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["link", "pipe", "EOS", "rope", "prepend"])
def test_the_command_refuses_with_a_sentence(checkout: Path, tmp_path: Path, kind: str) -> None:
    if kind == "link":
        shutil.move(checkout / "chat_template.jinja", tmp_path / "secret")
        (checkout / "chat_template.jinja").symlink_to(tmp_path / "secret")
    elif kind == "pipe":
        (checkout / "model.safetensors").unlink()
        os.mkfifo(checkout / "model.safetensors")
    elif kind == "EOS":
        edit(checkout / "config.json", CONFIGS["an EOS id of 2**70"])
    elif kind == "rope":
        edit(checkout / "config.json", CONFIGS["a RoPE factor of NaN"])
    else:
        edit(checkout / "tokenizer.json", TOKENIZERS["a Prepend of 50 MB"])
    done = run(checkout, "out=echo", stdin="Hi")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.endswith(".\n")
