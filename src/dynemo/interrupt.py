"""What Ctrl-C does outside of the event loop.

Usually it raises KeyboardInterrupt wherever Python is. Libraries do not expect that while they are
imported: some lose it, and the program goes on; some take it for an error of their own; msgspec has
died of one. So a start ends at once, and KeyboardInterrupt comes only where it is waited for.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any


def interrupt_ends(clean: Callable[[], object] = lambda: None) -> AbstractContextManager[None]:
    """Ctrl-C ends the process inside, after `clean`."""

    def end(*_: object) -> None:
        clean()
        os._exit(128 + signal.SIGINT)

    return _handled(end)


def interrupt_raises() -> AbstractContextManager[None]:
    """Ctrl-C raises KeyboardInterrupt inside, as it does usually."""
    return _handled(signal.default_int_handler)


@contextmanager
def _handled(handler: Callable[..., Any]) -> Iterator[None]:
    """Leaves a SIGINT alone that is ignored, as shells do it for what runs in the background."""
    before = signal.getsignal(signal.SIGINT)
    if before is None or before is signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
