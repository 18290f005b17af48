"""Writes the log to standard error, as text for people or as JSON for programs."""

import json
import logging
import sys
import time

from dynemo.limits import LOG_CHARACTERS, LOG_LINES, LOG_PERIOD_SECONDS
from dynemo.spelling import shortened, visible, visible_json

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
_ABOUT_PEERS = frozenset(f"dynemo.{part}" for part in ("ingress", "requests", "responses", "tls"))
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def set_up(log_format: str, verbosity: int, *, is_server: bool) -> None:
    """Sets up the root logger. A server logs one line per request; each -v adds detail."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    handler.addFilter(_Peers())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[min(verbosity, 2)])
    if is_server and verbosity == 0:
        for name in ("dynemo.http", "dynemo.worker"):
            logging.getLogger(name).setLevel(logging.INFO)


class _Peers(logging.Filter):
    """Bounds the lines about peers. A stranger can cause one with each message or connection."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, int] = {}  # of each text in this period
        self._ends = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name not in _ABOUT_PEERS or record.levelno < logging.WARNING:
            return True
        now = time.monotonic()
        if now > self._ends:
            self._counts.clear()
            self._ends = now + LOG_PERIOD_SECONDS
        text = str(record.msg)  # without its values: a constant of ours
        count = self._counts[text] = self._counts.get(text, 0) + 1
        if count == LOG_LINES:
            record.msg = f"{record.msg} More lines like this one are left out for a while."
        return count <= LOG_LINES


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD}


def _message(record: logging.LogRecord) -> str:
    return shortened(record.getMessage(), LOG_CHARACTERS)


def _lines(text: str) -> str:
    """Returns a text for people. Only its first line starts at the margin, as records do."""
    return visible(text).replace("\n", "\n  ")


def _logfmt_value(value: object) -> str:
    """Returns a field's value for logfmt, quoted if it could end the field or the line."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    plain = text.isprintable() and not any(sign in text for sign in ' "=')
    return text if plain and text else json.dumps(text)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = [
            f"{key}={_logfmt_value(value)}"
            for key, value in _extra(record).items()
            if value is not None and value != []
        ]
        head = f"{clock} {record.levelname.lower()} {record.name}: {_lines(_message(record))}"
        line = " ".join([head, *fields])
        trace = f"\n{visible(self.formatException(record.exc_info))}" if record.exc_info else ""
        return line + trace


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **_extra(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return visible_json(json.dumps(line, ensure_ascii=False, default=str))
