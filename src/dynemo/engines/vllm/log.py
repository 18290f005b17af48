"""vLLM's log: to standard output at the right level, and its failures to a file.

vLLM's core and its workers are separate processes. They only tell the host that there was a
failure. The reason is in their logs, so each of them is configured to write its errors here.
"""

import json
import logging
import os
from typing import Any

from dynemo.foreign import decode_any_json

_LEVELS = ("WARNING", "INFO", "DEBUG")
_LONGEST = 400
#: The error by which the host learns that its core has ended. It has no details.
_DEAD = "EngineDeadError"


class Failures(logging.Handler):
    """Appends the reason of each error record to `path`, as one line of JSON."""

    def __init__(self, path: str) -> None:
        super().__init__(logging.ERROR)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        reason = record.getMessage() if error is None else reason_of(error)
        line = json.dumps([type(error).__name__ if error else "", reason])
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            self.handleError(record)


class Log:
    """The logging of one host's vLLM. Create it before vLLM is imported."""

    def __init__(self, workdir: str, verbosity: int) -> None:
        self._failures = os.path.join(workdir, "failures")
        self.config = os.path.join(workdir, "logging.json")  #: path of vLLM's log configuration
        level = _LEVELS[min(verbosity, 2)]
        # For the time before vLLM has read its configuration, and for processes that never read it.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", level)
        with open(self.config, "w", encoding="utf-8") as file:
            json.dump(_config(self._failures, os.environ["VLLM_LOGGING_LEVEL"]), file)

    def failure(self) -> str | None:
        """Returns the first reason in the file, because later errors follow from it.

        None if there is none.
        """
        try:
            with open(self._failures, encoding="utf-8") as file:
                logged: list[tuple[str, str]] = [decode_any_json(line) for line in file]
        except FileNotFoundError:
            return None
        raised = [reason for error, reason in logged if error not in ("", _DEAD)]
        return next(iter(raised or [reason for error, reason in logged if not error]), None)

    def forget(self) -> None:
        """Drops the failures so far, because the engine has started."""
        with open(self._failures, "w", encoding="utf-8"):
            pass


def _config(failures: str, level: str) -> dict[str, Any]:
    """Returns a configuration for `logging.config.dictConfig`, for each of vLLM's processes."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"format": "%(levelname)s %(processName)s %(filename)s: %(message)s"},
        },
        "handlers": {
            "line": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "stream": "ext://sys.stdout",
            },
            "failures": {"class": f"{__name__}.Failures", "path": failures},
        },
        "loggers": {
            "vllm": {"handlers": ["line", "failures"], "level": level, "propagate": False},
        },
    }


def reason_of(error: BaseException) -> str:
    """Returns an error's message on one line without a full stop, or the start of a long one."""
    details = getattr(error, "errors", None)  # pydantic's
    if callable(details):
        first = details()[0]
        return reason_of(first["ctx"]["error"]) if "error" in first.get("ctx", {}) else first["msg"]
    text = str(error)
    if "Traceback (most" in text:  # from another process; its last line is the reason
        text = text.strip().splitlines()[-1]
    text = " ".join(text.split()) or type(error).__name__
    if len(text) > _LONGEST:
        whole, _, _ = text[:_LONGEST].rpartition(". ")
        return whole or text[:_LONGEST].rpartition(" ")[0]
    return text.rstrip(".")
