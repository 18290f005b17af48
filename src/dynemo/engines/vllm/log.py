"""vLLM's log: to standard output at the right level, and what failed to a file beside it.

vLLM's core and its workers are processes of their own. All that they tell the host of a failure is
that there was one; its words stand in their log, which each of them is told to keep here.
"""

import json
import logging
import os
from typing import Any

_LEVELS = ("WARNING", "INFO", "DEBUG")
_MOST_WORDS = 400
#: What the host is told of its core's end. It says no more than that.
_DEAD = "EngineDeadError"


class Failures(logging.Handler):
    """Appends to `path` what each error record tells, as one line of JSON."""

    def __init__(self, path: str) -> None:
        super().__init__(logging.ERROR)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        words = record.getMessage() if error is None else words_of(error)
        line = json.dumps([type(error).__name__ if error else "", words])
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            self.handleError(record)


class Log:
    """The logging of one host's vLLM. Made before vLLM is imported."""

    def __init__(self, workdir: str, verbosity: int) -> None:
        self._failures = os.path.join(workdir, "failures")
        self.config = os.path.join(workdir, "logging.json")  #: the path of what vLLM is told
        level = _LEVELS[min(verbosity, 2)]
        # Before vLLM has read its configuration, and in processes that never do.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", level)
        with open(self.config, "w", encoding="utf-8") as file:
            json.dump(_config(self._failures, os.environ["VLLM_LOGGING_LEVEL"]), file)

    def failure(self) -> str | None:
        """The words of what failed first: the rest follows from it. None: nothing is told."""
        try:
            with open(self._failures, encoding="utf-8") as file:
                told: list[tuple[str, str]] = [json.loads(line) for line in file]
        except FileNotFoundError:
            return None
        raised = [words for kind, words in told if kind not in ("", _DEAD)]
        return next(iter(raised or [words for kind, words in told if not kind]), None)

    def forget(self) -> None:
        """Drops the failures so far: the engine lives."""
        with open(self._failures, "w", encoding="utf-8"):
            pass


def _config(failures: str, level: str) -> dict[str, Any]:
    """For `logging.config.dictConfig`, in each of vLLM's processes."""
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


def words_of(error: BaseException) -> str:
    """What an error says, in one line without a stop at its end; of a long one, its beginning."""
    details = getattr(error, "errors", None)  # pydantic's
    if callable(details):
        first = details()[0]
        return words_of(first["ctx"]["error"]) if "error" in first.get("ctx", {}) else first["msg"]
    said = str(error)
    if "Traceback (most" in said:  # another process's, whose last line is the reason
        said = said.strip().splitlines()[-1]
    text = " ".join(said.split()) or type(error).__name__
    if len(text) > _MOST_WORDS:
        whole, _, _ = text[:_MOST_WORDS].rpartition(". ")
        return whole or text[:_MOST_WORDS].rpartition(" ")[0]
    return text.rstrip(".")
