"""Controls the effect of Ctrl-C outside of the event loop, and of the loss of the terminal.

By default Python raises KeyboardInterrupt wherever it happens to be. Libraries do not expect this
during their import: some swallow it and the program continues, some report it as their own error,
and msgspec has crashed. So Ctrl-C exits the process during start, and raises KeyboardInterrupt only
in blocks that expect it.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any


def hangups() -> tuple[int, ...]:
    """SIGHUP, unless it is ignored: `nohup` wants the program to outlive its terminal."""
    return () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)


def interrupt_ends(clean: Callable[[], object] = lambda: None) -> AbstractContextManager[None]:
    """Within this context, Ctrl-C calls `clean` and exits the process."""

    def end(*_: object) -> None:
        clean()
        os._exit(128 + signal.SIGINT)

    return _handled(end)


def interrupt_raises() -> AbstractContextManager[None]:
    """Within this context, Ctrl-C raises KeyboardInterrupt, as it does by default."""
    return _handled(signal.default_int_handler)


@contextmanager
def _handled(handler: Callable[..., Any]) -> Iterator[None]:
    """Installs `handler` unless SIGINT is ignored. Shells ignore it for background jobs."""
    before = signal.getsignal(signal.SIGINT)
    if before is None or before is signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
