"""Every error that dynemo raises on purpose, with its code, its status and its exit code.

    DynemoError            internal_error             500, exit 1  something failed while running.
    +-- UsageError         usage                      400, exit 2  the user can correct it.
    |   +-- ModelError     invalid_model              400, exit 2  missing, broken, not supported.
    |   +-- EngineNotInstalled  engine_not_installed  400, exit 2  names the command that installs.
    +-- RequestError       bad_request                400  a request is wrong; `param` is the field.
    |   +-- UnsupportedField       unsupported_field        400  no engine here can honour a field.
    |   +-- ContextLengthExceeded  context_length_exceeded  400  the prompt alone does not fit.
    |   +-- UnknownModel           unknown_model            404  no such model.
    |   +-- BodyTooLarge           body_too_large           413  the body is over its bound.
    |   +-- Unauthenticated        unauthenticated          401  no key, or an unknown one.
    |   +-- Forbidden              forbidden                403  this client may not do that.
    |   +-- RequestCrashedEngine   request_crashed_engine   422  it ended two engines.
    +-- Unavailable        unavailable                503  no instance can take the request now.
    |   +-- InstanceGone   instance_gone              503  that instance does not answer.
    |   |   +-- InstanceSilent  instance_silent       503  it may answer later.
    |   +-- InstanceAway   instance_away              503  it drains, or restarts its engine.
    |   +-- IngressUnreachable  ingress_unreachable  503  the worker cannot connect to answer.
    |   +-- PlaneAway      request_plane_away         503  no instance at all can be asked.
    |   +-- Overloaded     overloaded                 429  the queue or the client's share is full.
    +-- DeadlineExceeded   deadline_exceeded          504  the request's own time is over.
    +-- GuideNotContinued  guide_not_continued        502  the rest of a guided answer is unknown.
    +-- EngineError        engine_error               500  the engine refused or failed a request.
    |   +-- EngineLost     engine_lost                502  its process ended during the request.
    |       +-- EngineNotLoaded  engine_not_loaded    502, exit 2  it ended before a request.
    |       +-- EngineStalled    engine_stalled       502  it lives, and makes no progress.
    |       +-- InstanceLost     instance_lost        502  its worker, or the connection, was lost.
    |           +-- HandedBack   handed_back          502  its worker stops, and gave the rest back.
    +-- SlowReader         slow_reader                408  a stream's reader fell behind its bound.
    +-- WireError          protocol_error             500  a frame that breaks the protocol.

Codes are stable: they travel between processes, of different releases too, and a code never changes
its meaning. Adapters translate third-party exceptions where they can meet them. `http/` maps the
tree to answers once, and `app/cli.py` to the terminal once. Errors are never told apart by text.
"""


class DynemoError(Exception):
    """The root. `str(error)` is one sentence for the user; no trailing newline."""

    status = 500
    exit_code = 1
    code = "internal_error"
    #: A finer code, by which an API names the fault; it does not travel.
    detail: str | None = None
    #: The field of `Ask` that is wrong, if there is one.
    param: str | None = None
    #: The traceback of code that is the user's own, for the log.
    trace: str = ""


class UsageError(DynemoError):
    status = 400
    exit_code = 2
    code = "usage"


class ModelError(UsageError):
    code = "invalid_model"


class EngineNotInstalled(UsageError):
    code = "engine_not_installed"


class RequestError(DynemoError):
    status = 400
    code = "bad_request"

    def __init__(
        self, message: str, *, param: str | None = None, detail: str | None = None
    ) -> None:
        super().__init__(message)
        self.param = param
        self.detail = detail


class UnsupportedField(RequestError):
    code = "unsupported_field"


class ContextLengthExceeded(RequestError):
    code = "context_length_exceeded"


class UnknownModel(RequestError):
    status = 404
    code = "unknown_model"


class BodyTooLarge(RequestError):
    status = 413
    code = "body_too_large"


class Unauthenticated(RequestError):
    status = 401
    code = "unauthenticated"


class Forbidden(RequestError):
    status = 403
    code = "forbidden"


class RequestCrashedEngine(RequestError):
    """Clients retry a 5xx on their own; each retry would cost two more engines."""

    status = 422
    code = "request_crashed_engine"


class Unavailable(DynemoError):
    """`retry_after` is in seconds."""

    status = 503
    code = "unavailable"
    #: Seconds in which the instance may take requests again; it does not travel.
    returns_within = 0.0

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InstanceGone(Unavailable):
    code = "instance_gone"


class InstanceSilent(InstanceGone):
    code = "instance_silent"


class InstanceAway(Unavailable):
    code = "instance_away"
    returns_within = 5.0


class IngressUnreachable(Unavailable):
    code = "ingress_unreachable"


class PlaneAway(Unavailable):
    code = "request_plane_away"


class Overloaded(Unavailable):
    status = 429
    code = "overloaded"


class DeadlineExceeded(DynemoError):
    status = 504
    code = "deadline_exceeded"


class GuideNotContinued(DynemoError):
    status = 502
    code = "guide_not_continued"


class EngineError(DynemoError):
    code = "engine_error"


class EngineLost(EngineError):
    status = 502
    code = "engine_lost"


class EngineNotLoaded(EngineLost):
    exit_code = 2
    code = "engine_not_loaded"


class EngineStalled(EngineLost):
    code = "engine_stalled"


class InstanceLost(EngineLost):
    code = "instance_lost"


class HandedBack(InstanceLost):
    code = "handed_back"


class SlowReader(DynemoError):
    status = 408
    code = "slow_reader"


class WireError(DynemoError):
    code = "protocol_error"
