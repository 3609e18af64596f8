"""A deadline for our own code, where somebody else decides how long it takes."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TooLate(BaseException):
    """The deadline has passed. Not an Exception: whatever is interrupted must not take it for a fault of its own."""


@contextmanager
def interrupted_at(deadline: float) -> Iterator[None]:
    """Raise TooLate in the block when the clock (`time.monotonic`) says so.

    It needs the main thread and the system's alarm clock, unless somebody else has set it. Where it cannot be had,
    nothing happens: then who waits looks at the clock afterwards.
    """
    if not _is_free():
        yield
        return
    signal.signal(signal.SIGALRM, _ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(deadline - time.monotonic(), 0.001))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _is_free() -> bool:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        return False
    return signal.getsignal(signal.SIGALRM) is signal.SIG_DFL and signal.getitimer(signal.ITIMER_REAL)[0] == 0


def _ring(_number: int, _frame: FrameType | None) -> None:
    raise TooLate
