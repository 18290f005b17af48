"""The error of a rendering that has to run in another process."""

from dynemo.errors import RequestError


class RenderTooLong(RequestError):
    """A rendering needs more than its budget in this process. `child.py` can still render it."""
