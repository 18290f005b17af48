"""What a rendering raises when it is not refused, but has to run elsewhere."""

from dynemo.errors import RequestError


class RenderTooLong(RequestError):
    """A rendering needs more than its budget in this process. `child.py` can still render it."""
