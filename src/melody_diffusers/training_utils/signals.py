"""Signals that ask a training to stop."""

import contextlib
import signal
import types
from collections.abc import Callable, Iterator

SIGNALS = [signal.SIGTERM, signal.SIGINT, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]


@contextlib.contextmanager
def catch_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Within the context the first of `SIGNALS` calls `stop`; the second acts as usual."""

    def note(number: int, frame: types.FrameType | None) -> None:
        stop()
        for each in previous:
            signal.signal(each, previous[each])

    try:
        previous = {each: signal.signal(each, note) for each in SIGNALS}
    except ValueError:  # not in the main thread: signals are somebody else's
        previous = {}
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
