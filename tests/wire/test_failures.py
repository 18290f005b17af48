import inspect
from typing import Any

import pytest
from msgspec import convert, msgpack

from dynemo import errors
from dynemo.errors import (
    DynemoError,
    EngineError,
    EngineLost,
    InstanceSilent,
    RequestError,
    Unavailable,
    UnknownModel,
    WireError,
)
from dynemo.limits import ERROR_CHARACTERS
from dynemo.messages.wire import Failure
from dynemo.planes.discovery.base import Refused
from dynemo.wire.failures import PROTOCOL_1, decode_error, encode_error, reason_of
from support import protocol_1
from support.recording import load_raw

CLASSES: list[type[DynemoError]] = [
    item
    for _, item in inspect.getmembers(errors, inspect.isclass)
    if issubclass(item, DynemoError) and item.__module__ == errors.__name__
]
OLD = {
    name
    for name, item in inspect.getmembers(protocol_1, inspect.isclass)
    if issubclass(item, protocol_1.DynemoError)
}
RECORDED = load_raw("failures")["failures"]


def _make(kind: type[DynemoError]) -> DynemoError:
    if issubclass(kind, RequestError):
        return kind("Something is wrong.", param="top_k")
    if issubclass(kind, Unavailable):
        return kind("Something is wrong.", retry_after=7)
    return kind("Something is wrong.")


def test_two_classes_never_share_a_code() -> None:
    codes = [kind.code for kind in CLASSES]
    assert len(codes) == len(set(codes))
    assert all("code" in vars(kind) for kind in CLASSES)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_survives(kind: type[DynemoError]) -> None:
    sent = _make(kind)
    got = decode_error(encode_error(sent))
    assert type(got) is kind
    assert (str(got), got.param, got.code) == (str(sent), sent.param, sent.code)
    assert getattr(got, "retry_after", None) == getattr(sent, "retry_after", None)


@pytest.mark.parametrize("kind", CLASSES)
def test_protocol_1_reads_every_error_as_its_nearest_class(kind: type[DynemoError]) -> None:
    got = protocol_1.raised(encode_error(_make(kind)))
    bases = [base.__name__ for base in kind.__mro__]
    assert type(got).__name__ == next(name for name in bases if name in OLD)
    assert str(got) == "Something is wrong."


def test_the_names_that_protocol_1_knows_stay() -> None:
    assert set(PROTOCOL_1.values()) == OLD


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda r: r["class"])
def test_a_failure_of_protocol_1_is_read_as_its_class(recorded: dict[str, Any]) -> None:
    got = decode_error(convert(recorded["body"], bytes))
    raised = recorded["raised"]
    assert type(got).__name__ == raised["class"]
    assert (str(got), got.param) == (raised["message"], raised["param"])
    assert got.status == raised["status"]


def _failure(error: str, code: str, **more: Any) -> DynemoError:
    return decode_error(msgpack.encode({"error": error, "message": "m", "code": code, **more}))


def test_a_code_of_a_later_release_falls_back_to_its_name_in_protocol_1() -> None:
    lost = _failure("EngineLost", "kv_transfer_failed")
    assert type(lost) is EngineLost  # the pool then moves the answer
    silent = _failure("InstanceSilent", "instance_asleep", retry_after=9)
    assert type(silent) is InstanceSilent
    assert silent.retry_after == 9
    assert type(_failure("Renamed", "kv_transfer_failed")) is EngineError


def test_a_code_counts_more_than_a_name() -> None:
    """A later release may rename a class."""
    assert type(_failure("RequestError", "unknown_model", param="model")) is UnknownModel
    assert type(_failure("Renamed", "engine_lost")) is EngineLost


def test_a_class_of_another_module_travels_as_its_base() -> None:
    body = encode_error(Refused("Not allowed.", retry_after=3))
    assert msgpack.decode(body, type=Failure).error == "Unavailable"
    got = decode_error(body)
    assert type(got) is Unavailable
    assert got.retry_after == 3


def test_a_new_class_travels_by_its_code_and_the_name_of_its_base() -> None:
    class KvTransferFailed(EngineLost):
        code = "kv_transfer_failed"

    failure = msgpack.decode(encode_error(KvTransferFailed("m")), type=Failure)
    assert (failure.code, failure.error) == ("kv_transfer_failed", "EngineLost")


def test_a_foreign_exception_becomes_an_engine_error(caplog: pytest.LogCaptureFixture) -> None:
    got = decode_error(encode_error(IndexError("list index out of range")))
    assert type(got) is EngineError
    assert str(got) == "The engine failed: IndexError: list index out of range."
    sent = EngineError("It broke.")
    sent.trace = "Traceback of FILE.py"
    decode_error(encode_error(sent))
    assert "Traceback of FILE.py" in caplog.text


def test_an_invalid_body_fails() -> None:
    for body in (b"", b"\xc1", b"\x90"):
        with pytest.raises(WireError, match="does not decode"):
            decode_error(body)
        assert reason_of(body) == ""
    assert reason_of(encode_error(WireError("Upgrade the worker."))) == "Upgrade the worker."


def test_a_message_that_travels_is_bounded() -> None:
    assert len(str(decode_error(encode_error(RequestError("a" * 10**6))))) == ERROR_CHARACTERS
