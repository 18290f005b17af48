"""The meaning of MODEL, for existing paths and for others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dynemo
from dynemo.errors import ModelError
from dynemo.models.choose import ModelFormat, has_label, part_names, quant_of, stem
from dynemo.models.find import Found, find_model

GGUF = b"GGUF\x03\0\0\0"


def put(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def refusal(argument: str, **options: object) -> str:
    with pytest.raises(ModelError) as caught:
        find_model(argument, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_gguf_file_is_itself(tmp_path: Path) -> None:
    put(tmp_path, **{"tiny-Q8_0.gguf": GGUF, "renamed.bin": GGUF})
    assert find_model("tiny-Q8_0.gguf") == Found("gguf", Path("tiny-Q8_0.gguf"), "tiny-Q8_0")
    assert find_model("./renamed.bin").format == "gguf"


def test_any_part_stands_for_the_whole(tmp_path: Path) -> None:
    parts = [f"big-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    put(tmp_path / "big", **dict.fromkeys(parts, GGUF))
    first = tmp_path / "big" / parts[0]
    for argument in (tmp_path / "big" / parts[1], tmp_path / "big"):
        assert find_model(str(argument)) == Found("gguf", first, "big")
    first.unlink()
    for argument in (tmp_path / "big" / parts[1], tmp_path / "big"):
        assert refusal(str(argument)).startswith(f'"{first}" is missing, one of 3 parts')


def test_folders(tmp_path: Path) -> None:
    checkout = put(tmp_path / "llama", **{"config.json": b"{}", "model.safetensors": b""})
    assert find_model("llama") == Found("checkout", Path("llama"), "llama")
    assert find_model(f"{checkout}/") == Found("checkout", checkout, "llama")
    put(tmp_path / "trt", **{"config.json": b"{}", "rank0.engine": b""})
    assert find_model("trt") == Found("engine", Path("trt"), "trt")
    put(tmp_path / "quants", **{"config.json": b"{}", "a.gguf": GGUF, "mmproj-a.gguf": GGUF})
    assert find_model("quants") == Found("gguf", Path("quants/a.gguf"), "a")


def test_an_existing_path_wins_over_a_hub_name(tmp_path: Path) -> None:
    put(tmp_path / "org" / "repo", **{"config.json": b"{}", "model.safetensors": b""})
    assert find_model("org/repo").format == "checkout"


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path, **{"a.gguf": GGUF})
    assert find_model("~/a.gguf").path == tmp_path / "a.gguf"
    assert refusal("~/models/b.gguf").startswith('No file or folder "~/models/b.gguf"')


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("tiny-Q8_1.gguf", 'No file or folder "tiny-Q8_1.gguf". Did you mean "tiny-Q8_0.gguf"?'),
        ("./models/lama", 'No file or folder "./models/lama". Did you mean "./models/llama"?'),
        ("models/lama.gguf", 'No file or folder "models/lama.gguf"'),
        ("/nowhere/x", 'No file or folder "/nowhere/x". Pass a GGUF file, a folder with'),
        ("a/b/c", 'No file or folder "a/b/c". Pass a GGUF file'),
        ("gpt2", 'No file or folder "gpt2". Pass a GGUF file'),
        ("https://host/org/repo", '"https://host/org/repo" is a URL. Pass a GGUF file'),
        (" ", "The model name is empty. Pass a GGUF file"),
        ("empty", '"empty" is an empty folder. Pass a GGUF file'),
        ("other", '"other" is a folder without config.json and without a GGUF file. Pass a'),
        ("several", '"several" holds 2 GGUF models. Choose one of several/a.gguf, several/b.gguf.'),
        ("pointer.gguf", '"pointer.gguf" is a Git LFS pointer, not the file that it stands for,'),
        ("page.gguf", '"page.gguf" is a web page, not a GGUF file. The download saved a web page'),
        (
            "own.py",
            '"own.py" is a text file, not a GGUF file. To use it as an engine, pass out=own.py.',
        ),
        ("null", '"null" is neither a file nor a folder'),
    ],
)
def test_a_path_without_a_model(tmp_path: Path, argument: str, sentence: str) -> None:
    put(tmp_path / "models" / "llama")
    put(tmp_path / "empty")
    put(tmp_path / "other", **{"README.md": b"# hello"})
    put(tmp_path / "several", **{"a.gguf": GGUF, "b.gguf": GGUF})
    put(
        tmp_path,
        **{
            "tiny-Q8_0.gguf": GGUF,
            "own.py": b"async def generate(request): ...\n",
            "page.gguf": b"<!doctype html>",
            "pointer.gguf": b"version https://git-lfs.github.com/spec/v1\n",
        },
    )
    os.mkfifo(tmp_path / "null")
    assert refusal(argument).startswith(sentence)


def test_a_file_of_a_checkout_names_its_folder(tmp_path: Path) -> None:
    header = b'{"w": {}}'
    weights = len(header).to_bytes(8, "little") + header
    put(tmp_path / "llama", **{"config.json": b"{}", "model.safetensors": weights})
    types = {"model.safetensors": "a safetensors file", "config.json": "a JSON file"}
    for name, file_type in types.items():
        assert refusal(f"llama/{name}") == (
            f'"llama/{name}" is {file_type}, not a GGUF file. Pass its folder, {tmp_path}/llama.'
        )


@pytest.mark.parametrize(
    ("argument", "needs", "sentence"),
    [
        ("a.gguf", "checkout", '"a.gguf" is a GGUF file, but vllm needs a checkout. Pass a folder'),
        ("llama", "gguf", '"llama" is a checkout, but vllm needs a GGUF file. Pass a GGUF file'),
        ("trt", "gguf", '"trt" is a TensorRT-LLM engine, but vllm needs a GGUF file. Pass one'),
    ],
)
def test_the_wrong_kind_for_an_engine(
    tmp_path: Path, argument: str, needs: ModelFormat, sentence: str
) -> None:
    put(tmp_path, **{"a.gguf": GGUF})
    put(tmp_path / "llama", **{"config.json": b"{}", "model.safetensors": b""})
    put(tmp_path / "trt", **{"config.json": b"{}", "rank0.engine": b""})
    assert refusal(argument, needs=needs, engine="vllm").startswith(sentence)
    assert find_model(argument)


def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    put(tmp_path / "locked").chmod(0)
    try:
        assert refusal("locked").startswith('"locked" cannot be read: Permission denied.')
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_nothing_means_the_demo() -> None:
    gguf, checkout = find_model(None), find_model(None, needs="checkout")
    assert (gguf.format, gguf.name) == ("gguf", "demo")
    assert (checkout.format, checkout.name) == ("checkout", "demo")


def test_a_local_path_loads_no_hub_library(tmp_path: Path) -> None:
    put(tmp_path, **{"a.gguf": GGUF})
    script = (
        "import sys; from dynemo.models.find import find_model; find_model('a.gguf');"
        "sys.exit('huggingface_hub' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(dynemo.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 0


@pytest.mark.parametrize(
    ("path", "label", "has"),
    [
        ("tiny-Q4_K_M.gguf", "Q4_K_M", True),
        ("tiny-q4_k_m.gguf", "Q4_K_M", True),
        ("tiny.Q4_K_M.gguf", "q4_k_m", True),
        ("tiny_Q8_0.gguf", "Q8_0", True),
        ("Q8_0/tiny-Q8_0-00002-of-00003.gguf", "Q8_0", True),
        ("tiny-UD-Q4_K_XL.gguf", "Q4_K_XL", True),
        ("tiny-Q4_K_M.gguf", "Q4_K", False),
        ("tiny-Q4_K_M.gguf", "K_M", False),
        ("tiny-IQ4_XS.gguf", "Q4_XS", False),
    ],
)
def test_labels(path: str, label: str, has: bool) -> None:
    assert has_label(path, label) is has


def test_names_of_ggufs() -> None:
    assert stem("a/b-Q8_0-00001-of-00003.gguf") == "b-Q8_0"
    assert quant_of("a/b-Q8_0-00001-of-00003.gguf") == "Q8_0"
    assert quant_of("tiny-UD-IQ2_XXS.gguf") == "UD-IQ2_XXS"
    assert quant_of("tiny.gguf") is None
    assert part_names("a-00002-of-00002.gguf") == ("a-00001-of-00002.gguf", "a-00002-of-00002.gguf")
    assert part_names("a-00002-of-99999.gguf") == ("a-00002-of-99999.gguf",)
    assert part_names("a.gguf") == ("a.gguf",)
