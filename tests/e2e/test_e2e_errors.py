"""Each user error is one sentence on standard error, with exit code 2 and no traceback."""

import gzip
import os
import shutil
import socket
from pathlib import Path

import pytest

from support.command import run


def _refused(*args: str | Path, stdin: str = "hi", **environment: str) -> str:
    done = run(*args, stdin=stdin, timeout=15, **environment)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("dynemo-run: ")
    assert "Traceback" not in line
    return line


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["in=htpp"], 'did you mean "in=http"?'),
        (["in=batch:"], "in=batch:prompts.jsonl"),
        (["out=lama_cpp"], 'did you mean "out=llama_cpp"?'),
        (["out=nope"], "out=echo, out=echo:text, out=FILE.py, out=dyn://NAME."),
        (["out=trtllm"], "run `dynemo-run engine install trtllm`"),
        (["out=dyn://pool", "--etcd", "127.0.0.1:1"], "dynemo-run services up"),
        (["out=dyn://a/b"], "dyn://NAMESPACE/COMPONENT/ENDPOINT"),
        (["in=dyn://pool", "out=dyn://pool"], "give a worker an engine"),
        (
            ["out=dyn://pool", "model.gguf"],
            "MODEL needs an engine in out=; this run has in=stdin out=dyn://pool.",
        ),
        (["--etcd", "127.0.0.1"], "--etcd needs a worker (in=dyn://NAME) or an ingress"),
        (["out=./mine.py"], 'There is no file "./mine.py" for out='),
        (["in=dyn://"], "dyn://NAMESPACE/COMPONENT/ENDPOINT"),
        (["in=none"], "rank 0"),
        (["in=none", "out=dyn://pool"], "in=none is a rank above 0"),
        (["in=http", "in=text"], "given twice"),
        (["a.gguf", "b.gguf"], "given twice"),
        (["--http-prot", "1"], 'did you mean "--http-port"?'),
        (["--threads", "1"], "go after `--`"),
        (["--temprature", "1"], 'Unknown flag "--temprature"; `dynemo-run --help all`'),
        (
            ["--http-port", "80808", "in=http"],
            '--http-port takes a port from 0 to 65535, not "80808".',
        ),
        (["--grace", "nan", "in=http"], '--grace takes a number of seconds, not "nan".'),
        (["--node-rank", "-1"], '--node-rank takes a whole number from 0 up, not "-1".'),
        (
            ["services", "up", "--etcd-port", "x"],
            '--etcd-port takes a port from 1 to 65535, not "x".',
        ),
        (["--http-port", "1", "in=stdin"], "--http-port needs in=http; this run has in=stdin."),
        (["--output", "x", "in=stdin"], "--output needs in=batch:FILE; this run has in=stdin."),
        (["--context-length", "99999"], "give at most 4096"),
        (["--", "--threds", "2"], 'did you mean "--threads"?'),
        (["--", "--threads"], "needs a value"),
        (["--", "--flash-attn", "maybe"], '--flash-attn takes on, off or auto, not "maybe".'),
        (["--", "--no-warmup=yes"], '--no-warmup takes no value, but got "yes".'),
        (["no-such-model.gguf"], 'No file or folder "no-such-model.gguf".'),
        (["./no/such/folder"], 'No file or folder "./no/such/folder".'),
        (["--model-config", "/nowhere"], "/nowhere"),
        (["--request-template", "/nowhere.json"], "/nowhere.json"),
        (["--config", "/nowhere.toml"], "/nowhere.toml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_word_that_is_wrong(args: list[str], said: str) -> None:
    assert said in _refused(*args)


@pytest.mark.parametrize("engine", ["echo", "llama_cpp"])
def test_an_argument_of_a_file_that_the_engine_lacks(engine: str, tmp_path: Path) -> None:
    file = tmp_path / "arguments.json"
    file.write_text('{"warp_speed": 9}')
    said = _refused(f"out={engine}", "--extra-engine-args", file)
    assert f"{engine} has no options" in said or f"Unknown {engine} option" in said
    assert "warp" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"temprature": 1}', 'Unknown field "temprature" in the request template '),
        ('{"temprature": 1}', 'did you mean "temperature"?'),
        ('{"xyz": 1}', "it may have the fields of a chat request"),
        ('{"stream": true}', 'cannot have "stream"; leave it out.'),
        ("[]", "is not a JSON object"),
    ],
)
def test_a_request_template_that_is_wrong(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "template.json"
    file.write_text(text)
    assert said in _refused("--request-template", file)


def test_an_empty_prompt() -> None:
    assert "Standard input is empty" in _refused(stdin="")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"PK\x03\x04" + b"\0" * 50, "zip"),
        (gzip.compress(b"x"), "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"GGUF\x03\0\0\0", "truncated|cut short|incomplete"),
    ],
    ids=["empty", "zip", "gzip", "lfs", "html", "gguf"],
)
def test_an_incomplete_gguf(content: bytes, said: str, tmp_path: Path) -> None:
    import re

    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    assert re.search(said, _refused(file), re.IGNORECASE)


def test_a_gguf_whose_end_is_missing(demo: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    whole = demo.read_bytes()
    file.write_bytes(whole[: len(whole) - 1000])
    assert "Download or copy it again." in _refused(file)


def test_a_checkout_whose_weights_are_cut_short(demo_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(demo_folder, folder)
    os.truncate(folder / "model.safetensors", 1_500_000)
    said = _refused(folder)
    assert f'"{folder / "model.safetensors"}" is truncated: it needs' in said
    assert "has 1,500,000. Download it again." in said


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    assert "config.json" in _refused(tmp_path)


def test_a_checkout_for_an_engine_that_reads_gguf(demo_folder: Path) -> None:
    line = _refused("out=llama_cpp", demo_folder)
    assert "llama_cpp" in line
    assert "GGUF" in line


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = _refused("in=http", "--http-port", port)
    assert port in line
    assert "--http-port" in line


def test_settings_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("htp-port = 1\n")
    assert 'did you mean "http_port"?' in _refused("--config", file)
    file.write_text('out = "nope"\n')
    assert 'Unknown output "out=nope"' in _refused("--config", file)
    assert 'Unknown output "out=never"' in _refused("--config", file, DYNEMO_OUT="never")
    assert 'Unknown output "out=last"' in _refused("--config", file, "out=last", DYNEMO_OUT="never")
    assert 'DYNEMO_HTTP_PORT takes a port from 0 to 65535, not "x".' in _refused(
        "in=http", DYNEMO_HTTP_PORT="x"
    )
