"""Every error that dynemo raises on purpose, with the status and exit code it means.

    DynemoError                   500, exit 1   something failed while running
    +-- UsageError                400, exit 2   what the user can correct before it runs
    |   +-- ModelError            400, exit 2   a model that is missing, broken or not supported
    |   +-- EngineNotInstalled    400, exit 2   carries the command that installs it
    +-- RequestError              400           one request is wrong; names the field in `param`
    |   +-- UnsupportedField      400           a field that this engine or version cannot honour
    |   +-- ContextLengthExceeded 400           the prompt alone does not fit
    |   +-- UnknownModel          404
    |   +-- BodyTooLarge          413
    +-- Unavailable               503           no instance can take the request now; may be retried
    |   +-- InstanceGone          503           that instance does not answer; ask another
    |   |   +-- InstanceSilent    503           it may yet: nothing says that it has gone
    |   +-- PlaneAway             503           no instance can be asked, whichever it is
    +-- EngineError               500           the engine refused or failed one request
    |   +-- EngineLost            502           the engine process ended under the request
    |       +-- EngineNotLoaded   502, exit 2   it ended before it could take one
    +-- SlowReader                408           a stream's reader fell behind its bound
    +-- WireError                 500           a frame that breaks the protocol

Third-party exceptions are translated at the adapter that can meet them. HTTP maps this tree once,
in `http/errors.py`; the terminal maps it once, in `cli.py`. Nothing tells errors apart by text.
"""


class DynemoError(Exception):
    """The root. `str(error)` is one sentence for the user; no trailing newline."""

    status = 500
    exit_code = 1
    #: OpenAI's `type` and `code` in an error body.
    type = "server_error"
    code: str | None = None
    #: The request field that is wrong, where there is one.
    param: str | None = None
    #: The traceback of code that is the user's own, for the log.
    trace: str = ""


class UsageError(DynemoError):
    status = 400
    exit_code = 2
    type = "invalid_request_error"


class ModelError(UsageError):
    code = "invalid_model"


class EngineNotInstalled(UsageError):
    code = "engine_not_installed"


class RequestError(DynemoError):
    status = 400
    type = "invalid_request_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        if code is not None:
            self.code = code


class UnsupportedField(RequestError):
    code = "unsupported_parameter"


class ContextLengthExceeded(RequestError):
    code = "context_length_exceeded"


class UnknownModel(RequestError):
    status = 404
    code = "model_not_found"


class BodyTooLarge(RequestError):
    status = 413
    code = "request_too_large"


class Unavailable(DynemoError):
    """`retry_after` is in seconds."""

    status = 503
    code = "unavailable"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InstanceGone(Unavailable):
    code = "instance_gone"


class InstanceSilent(InstanceGone):
    code = "instance_silent"


class PlaneAway(Unavailable):
    code = "request_plane_away"


class EngineError(DynemoError):
    code = "engine_error"


class EngineLost(EngineError):
    status = 502
    code = "engine_lost"


class EngineNotLoaded(EngineLost):
    exit_code = 2


class SlowReader(DynemoError):
    status = 408
    code = "slow_reader"


class WireError(DynemoError):
    code = "protocol_error"
