import pytest

from dynemo.serving.local.last_lines import complaint, ending


@pytest.mark.parametrize(
    ("code", "tail", "said"),
    [
        (1, [], "exit code 1."),
        (0, ["ok."], "exit code 0: ok."),
        (-11, ["a", "b", "c", "d"], "signal SIGSEGV: b | c | d."),
        (-40, [], "signal 40."),
        (-9, [], "signal SIGKILL, as the system does it to a process that takes too much memory."),
        (-9, ["ValueError: no such thing."], "signal SIGKILL: ValueError: no such thing."),
        (
            -6,
            ["memory allocation of 4000 bytes failed", "note: run with `RUST_BACKTRACE=1`"],
            "signal SIGABRT: memory allocation of 4000 bytes failed.",
        ),
        (-6, ["thread panicked", "why", "stack backtrace:", "0: f"], "thread panicked | why."),
        (1, ["[TP0] torch.OutOfMemoryError: 3 GiB", "bye"], "1: torch.OutOfMemoryError: 3 GiB."),
    ],
)
def test_how_it_has_ended(code: int, tail: list[str], said: str) -> None:
    sentence = ending(code, tail)
    assert sentence.startswith("The engine ended with ")
    assert sentence.endswith(said)


def test_the_first_error_of_llama_cpp_is_its_complaint() -> None:
    tail = ["0.00 I load", "0.01 E unknown model architecture: 'x'", "0.02 E failed to load"]
    assert complaint(tail) == " It says: unknown model architecture: 'x'."
    assert complaint(["0.00 I load"]) == ""
