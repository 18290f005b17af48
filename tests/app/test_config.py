"""Settings from a file, from variables and from flags: their precedence and their errors."""

from pathlib import Path

import pytest

from dynemo.app.arguments import parse
from dynemo.app.help import help_text
from dynemo.app.settings.config import Setting, collect
from dynemo.app.settings.options import OPTIONS, Config
from dynemo.errors import UsageError
from dynemo.planes.discovery.backends import forms


def config(
    *words: str, variables: dict[str, str] | None = None, monkeypatch: pytest.MonkeyPatch
) -> Config:
    for name, text in (variables or {}).items():
        monkeypatch.setenv(name, text)
    return parse(["in=http", *words]).config


def test_flags_win_over_variables_and_these_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.toml"
    file.write_text('http-port = 1\nhttp_host = "a"\nmodel_path = "a.gguf"\ngrace = 1.5\n')
    made = config("--config", str(file), monkeypatch=monkeypatch)
    assert (made.http_port, made.http_host, made.model, made.grace) == (1, "a", "a.gguf", 1.5)
    variables = {"DYNEMO_HTTP_PORT": "2", "DYNEMO_MODEL": "b.gguf", "DYNEMO_HTTP_HOST": ""}
    made = config("--config", str(file), variables=variables, monkeypatch=monkeypatch)
    assert (made.http_port, made.http_host, made.model) == (2, "a", "b.gguf")
    words = ("c.gguf", "--http-port=3", "--config", str(file))
    made = config(*words, variables=variables, monkeypatch=monkeypatch)
    assert (made.http_port, made.model) == (3, "c.gguf")


def test_the_file_may_be_named_by_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.toml"
    file.write_text('in = "stdin"\nout = "dyn://pool"\netcd = "h:1"\nhttp_port = 9\n')
    monkeypatch.setenv("DYNEMO_CONFIG", str(file))
    made = parse([])
    assert str(made.mode) == "in=stdin out=dyn://pool"
    assert made.config.etcd == "h:1"
    assert made.unused == [f'http_port in "{file}"']


def test_a_variable_that_others_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCD_ENDPOINTS", "other:1")
    assert parse(["out=dyn://pool", "in=http"]).config.etcd == "other:1"
    monkeypatch.setenv("DYNEMO_ETCD", "own:1")
    assert parse(["out=dyn://pool", "in=http"]).config.etcd == "own:1"


def test_settings_for_other_runs_in_a_shared_file_are_ignored() -> None:
    variables = {
        "DYNEMO_MODEL": "a.gguf", "DYNEMO_NUM_NODES": "2", "DYNEMO_DIST_INIT_ADDR": "h:1",
        "DYNEMO_TENSOR_PARALLEL_SIZE": "2", "DYNEMO_IN": "http", "DYNEMO_OUT": "dyn://pool",
        "DYNEMO_DISCOVERY": "file", "DYNEMO_ETCD": "h:1", "DYNEMO_ADVERTISE": "h",
    }  # fmt: skip
    settings = collect({}, variables)
    made, unused = settings.for_mode(settings.mode())
    assert made == Config(input="http", out="dyn://pool", discovery="file")
    assert set(unused) == {
        *("DYNEMO_MODEL", "DYNEMO_NUM_NODES", "DYNEMO_DIST_INIT_ADDR"),
        *("DYNEMO_TENSOR_PARALLEL_SIZE", "DYNEMO_ETCD", "DYNEMO_ADVERTISE"),
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("htp-port = 1", 'Unknown setting "htp-port" in "{file}"; did you mean "http_port"?'),
        ("xyz = 1", 'Unknown setting "xyz" in "{file}"; choose one of in, out, model, '),
        ('config = "a"', 'Unknown setting "config" in "{file}"; '),
        ("http_port = true", 'http_port in "{file}" takes text or a number, not true.'),
        ("http_port = [1]", 'http_port in "{file}" takes text or a number, not [1].'),
        ("http_port = 1.5", 'http_port in "{file}" takes a port from 0 to 65535, not "1.5".'),
        ('discovery = "x"', f'discovery in "{{file}}" takes {forms()}, not "x".'),
        (
            'router_mode = "leastloaded"',
            'Unknown value "leastloaded" for router_mode in "{file}"; did you mean "least-loaded"?',
        ),
        (
            "http_port = 1\nhttp-port = 2",
            'http_port in "{file}" or http-port in "{file}" is given twice, as "1" and as "2"; ',
        ),
        (
            'model = "a"\nmodel_path = "b"',
            'model in "{file}" or model_path in "{file}" is given twice, as "a" and as "b"; ',
        ),
        (
            "[server]\nhttp_port = 1",
            '"http_port" in "{file}" stands in the table [server]; move it above the first table.',
        ),
        (
            "[server]\nhttp_prt = 1",
            'Unknown setting "http_prt" in [server] of "{file}"; did you mean "http_port"?',
        ),
        (
            "[a.b]\nhttp_prt = 1",
            'Unknown setting "http_prt" in [a.b] of "{file}"; did you mean "http_port"?',
        ),
        ("[server]", '[server] in "{file}" is a table, and the file has none; remove it.'),
        ("http_port", 'The file of --config, "{file}", is not valid TOML: '),
        ("\xff", 'The file of --config, "{file}", is not valid TOML: '),
    ],
)
def test_a_wrong_file(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        collect({"config": Setting(file, "--config", str(file), is_flag=True)}, {})
    assert str(caught.value).startswith(sentence.format(file=file))
    assert str(caught.value)[-1] in ".?"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("DYNEMO_HTP_PORT", 'Unknown variable "DYNEMO_HTP_PORT"; did you mean "DYNEMO_HTTP_PORT"?'),
        ("DYNEMO_PORT", 'Unknown variable "DYNEMO_PORT"; did you mean "DYNEMO_HTTP_PORT"?'),
        (
            "DYNEMO_FOO",
            'Unknown variable "DYNEMO_FOO"; `dynemo-run --help all` lists the settings.',
        ),
        ("DYNEMO_", 'Unknown variable "DYNEMO_"; `dynemo-run --help all` lists the settings.'),
        (
            "DYNEMO_TOKEN_ECHO_DELAY",
            'Unknown variable "DYNEMO_TOKEN_ECHO_DELAY"; '
            'did you mean "DYNEMO_TOKEN_ECHO_DELAY_MS"?',
        ),
    ],
)
def test_an_unknown_variable(name: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        collect({}, {name: "1"})
    assert str(caught.value) == sentence


def test_variables_of_other_programs_are_ignored() -> None:
    """Kubernetes sets variables for a service `dynemo-pool`. Engines and tests have others."""
    others = {
        "DYNEMO_POOL_SERVICE_HOST": "10.0.0.1",
        "DYNEMO_POOL_SERVICE_PORT": "80",
        "DYNEMO_POOL_SERVICE_PORT_HTTP": "80",
        "DYNEMO_POOL_PORT": "tcp://10.0.0.1:80",
        "DYNEMO_HTTP_PORT": "tcp://10.0.0.1:80",  # for a service named `dynemo-http`
        "DYNEMO_POOL_PORT_80_TCP": "tcp://10.0.0.1:80",
        "DYNEMO_POOL_PORT_80_TCP_ADDR": "10.0.0.1",
        "DYNEMO_TOKEN_ECHO_DELAY_MS": "0",
        "DYNEMO_TEST_VLLM_PYTHON": "python",
        "ANY_DYNEMO": "1",
    }
    assert collect({}, others).by_field == {}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("input=http", 'Unknown word "input="; did you mean "in="?'),
        ("outt=echo", 'Unknown word "outt="; did you mean "out="?'),
        ("model=a.gguf", 'Unknown word "model="; a run has in=, out= and MODEL.'),
        ("engin list", 'Unknown command "engin"; did you mean "engine"?'),
        ("in=http in=http", 'in= is given twice, as "http" and as "http"; keep one.'),
        ("a.gguf b.gguf", 'MODEL is given twice, as "a.gguf" and as "b.gguf"; keep one.'),
        (
            "--model-path a.gguf b.gguf",
            'MODEL is given twice, as "a.gguf" and as "b.gguf"; keep one.',
        ),
        ("in=dyn", 'Unknown input "in=dyn"; choose one of in=text, in=stdin, in=http, '),
        ("out=lama_cpp", 'Unknown output "out=lama_cpp"; did you mean "out=llama_cpp"?'),
        ("out=echo:txt", 'Unknown output "out=echo:txt"; did you mean "out=echo:text"?'),
        (
            "in=http out=dyn://pool -- --threads 8",
            "Options after `--` are for an engine; this run has in=http out=dyn://pool. "
            "Give them to the workers of the pool.",
        ),
        (
            "in=http out=dyn://pool --context-length 8",
            "--context-length needs an engine in out=; this run has in=http out=dyn://pool. "
            "Give it to the workers of the pool.",
        ),
        (
            "in=dyn://pool --router-mode prefix",
            "--router-mode needs an ingress (out=dyn://NAME); this run has in=dyn://pool.",
        ),
        (
            "in=dyn://pool --etcd h:1 --discovery file",
            "--etcd needs --discovery etcd.",
        ),
        (
            "in=dyn://pool --nats h:1 --discovery file",
            "--nats needs --request-plane nats.",
        ),
        ("in=dyn://pool --advertise h", "--advertise needs --request-plane tcp."),
        (
            "in=http out=dyn://pool --advertise h --request-plane tcp",
            "--advertise needs --request-plane nats.",
        ),
        (
            "in=dyn://pool --request-template f",
            "--request-template needs in=http, in=text, in=stdin or in=batch:FILE; "
            "this run has in=dyn://pool.",
        ),
        (
            "in=none out=vllm --model-name a",
            "--model-name needs an engine in out=, and another in= than none; "
            "this run has in=none out=vllm.",
        ),
    ],
)
def test_a_wrong_command_line(words: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words.split())
    assert str(caught.value).startswith(sentence)


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    file = tmp_path / "input=x"
    file.touch()
    assert parse([str(file)]).config.model == str(file)


def test_help_shows_the_flags_of_a_mode_and_all_of_them() -> None:
    shown = {flag: f"\n  {flag}" for option in OPTIONS for flag in (option.name,)}

    def count(*words: str) -> int:
        text = help_text(words)
        return sum(flag in text for flag in shown.values())

    assert count("--help", "all") == len(OPTIONS)
    for mode in ([], ["in=http"], ["in=dyn://a"], ["out=dyn://a"], ["in=none", "out=vllm"]):
        assert 10 <= count(*mode, "--help") <= 22
    assert "--router-mode" in help_text(["out=dyn://a"])
    assert "--router-mode" not in help_text(["in=dyn://a"])
    with pytest.raises(UsageError, match="did you mean"):
        help_text(["in=htpp", "--help"])
