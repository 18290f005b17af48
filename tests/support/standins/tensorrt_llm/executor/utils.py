"""Of one request alone."""


class RequestError(RuntimeError):
    pass
