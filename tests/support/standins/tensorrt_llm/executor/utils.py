"""Errors that concern only one request."""


class RequestError(RuntimeError):
    pass
