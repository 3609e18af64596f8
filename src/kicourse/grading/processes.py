"""Processes: starting one, looking at it from outside, finding what came from it, and an end to all of it."""

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

SPAWN = multiprocessing.get_context("spawn")
IMPORTS = threading.Semaphore(os.cpu_count() or 1)
"""Processes of ours that import at the same time, one a core: more would only delay the first mark."""
_LOOK_SECONDS = 0.1
_LEAST_WORK = 0.005  # seconds: half of what the system counts in
_MOST = 10_000


def can_fork() -> bool:
    """Whether a process can go on as two: not on Windows; on macOS, not safely once certain libraries are there."""
    return hasattr(os, "fork") and sys.platform != "darwin"


def cores() -> list[int]:
    """Return the numbers of the cores that this process may use; none where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def keep_to(pid: int, core: int) -> None:
    """Let a process, and those that come from it later, run on one core only."""
    with suppress(OSError):  # it has ended, or the core is not ours any more
        os.sched_setaffinity(pid, {core})


def spawn(target: Callable[..., None], *args: Any) -> SpawnProcess:
    """Start a process that calls a function of a module, as `multiprocessing` does, but for importing the main module.

    Nothing that is called needs that, and the command line takes a third of a second to import.
    """
    process = SPAWN.Process(target=target, args=args, daemon=False)
    with patch.object(sys.modules["__main__"], "__file__", None, create=True):
        process.start()
    return process


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Have processes that are started meanwhile, in this thread, never hear of Ctrl-C, not even while they start."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # `multiprocessing` starts it with the first process, and unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end of a block: an import that it breaks off leaves half a module, or swallows it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def end_with_parent() -> None:
    """End this process, which `multiprocessing` has started, when the one that did so has ended, however that was."""

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def all_descendants(pid: int) -> Iterator[int]:
    """Find whatever has come from a process, dead or alive; so many at the most, since new ones may come faster."""
    waiting, left = [pid], _MOST
    while waiting and left:
        for child in _children(waiting.pop())[:left]:
            yield child
            waiting.append(child)
            left -= 1


def tasks(pid: int) -> list[str]:
    """Return where Linux tells of each of a process's threads; nothing elsewhere."""
    with suppress(OSError):
        return [f"/proc/{pid}/task/{task}" for task in os.listdir(f"/proc/{pid}/task")]
    return []


def stand_still(pid: int) -> bool:
    """Whether no thread of what has come from a process runs or could, as after SIGSTOP; always so elsewhere."""
    return not any(_state(task) in "RS" for child in all_descendants(pid) for task in tasks(child))


def _state(task: str) -> str:
    """Return how Linux calls what a thread is doing; behind its name, which may be anything."""
    with suppress(OSError):
        return Path(f"{task}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    return "X"


def descendants(pid: int) -> list[psutil.Process]:
    """Return every live process that has come from this one."""
    return [process for child in all_descendants(pid) if (process := _alive(child))]


def is_alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    return _alive(pid) is not None


def clear(pid: int, seconds: float = 2.0) -> bool:
    """Kill whatever has come from a process; return whether nothing is left."""
    deadline = time.monotonic() + seconds
    ended: set[int] | None = None
    while time.monotonic() < deadline:
        found = set(all_descendants(pid))
        left = [process for child in found if (process := _alive(child))]
        # One that ends while it is looked for may have left another where that has been already: a second look tells.
        if not left and found == ended:
            return True
        ended = None if left else found
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        if left:
            time.sleep(0.002)
    return False


def end(pid: int) -> None:
    """Kill what has come from a process, and then itself."""
    clear(pid)
    with suppress(psutil.Error):
        psutil.Process(pid).kill()


def worked(pid: int) -> float:
    """Return how many seconds a process has used the processor; infinitely many if it is not there any more."""
    with suppress(psutil.Error):
        if is_alive(pid):
            times = psutil.Process(pid).cpu_times()
            return float(times.user + times.system)
    return math.inf


def comes_to_rest(pid: int, seconds: float = 2.0) -> bool:
    """Whether a process is there, and stops using the processor within so many seconds."""
    deadline = time.monotonic() + seconds
    while (before := worked(pid)) < math.inf:
        time.sleep(_LOOK_SECONDS)
        # On a busy machine, one that works gets a part of the time, and never none.
        if worked(pid) - before < _LEAST_WORK:
            return True
        if time.monotonic() > deadline:
            return False
    return False


def _alive(pid: int) -> psutil.Process | None:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        # The first thread may end before the others, and the system then speaks of a zombie.
        return process if process.status() != psutil.STATUS_ZOMBIE or len(tasks(pid)) > 1 else None
    return None


def _children(pid: int) -> list[int]:
    """Return a process's children; Linux lists them by thread, which is a hundred times as fast as a look at all."""
    try:
        lists = [Path(f"/proc/{pid}/task/{task}/children").read_text() for task in os.listdir(f"/proc/{pid}/task")]
        return [int(child) for line in lists for child in line.split()]
    except (FileNotFoundError, ProcessLookupError):  # no such lists here, or a thread that has just ended
        with suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children()]
        return []
    except OSError:
        return []
