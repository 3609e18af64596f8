"""Processes: starting one, looking at it from outside (what came from it, what it uses), and an end to all of it."""

import ctypes
import math
import multiprocessing
import os
import platform
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
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
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
_TRIES = 20
_MOST = 10_000  # processes that are looked for at once: new ones may come faster than they are found
_UNTOLD = 1 << 62  # as what counts what a process keeps to itself
_KCMP, _KCMP_VM = {"x86_64": 312, "aarch64": 272}.get(platform.machine(), 0), 1  # a system call's number, and its kind
_UNSEEN = (b"VmPTE:", b"VmSwap:", b"HugetlbPages:")  # KiB that Linux keeps for a process beside its resident memory


@dataclass(frozen=True)
class Used:
    """What processes use in all: bytes of memory that no file stands for, threads, processes, open descriptors.

    What forks share counts for each of them: `memory` is the most that it can be, and `exact_memory` takes longer.
    """

    memory: int = 0
    threads: int = 0
    processes: int = 0
    descriptors: int = 0


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


def end_with_parent() -> None:
    """End this process, which `multiprocessing` has started, when the one that did so has ended, however that was."""

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def descendants(pid: int) -> list[psutil.Process]:
    """Return every live process that has come from this one."""
    return [process for child in _descendants(pid) if (process := _alive(child))]


def is_alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    return _alive(pid) is not None


def clear(pid: int, seconds: float = 2.0) -> bool:
    """Kill whatever has come from a process; return whether nothing is left."""
    deadline = time.monotonic() + seconds
    ended: set[int] | None = None
    while time.monotonic() < deadline:
        found = set(islice(_descendants(pid), _MOST))
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


def used(pid: int, *, itself: bool = False) -> Used:
    """Return what all that has come from a process uses, dead ones included; with `itself`, it counts too."""
    found = [*([pid] if itself else []), *islice(_descendants(pid), _MOST)]
    memory = threads = descriptors = 0
    for one in found:
        with suppress(OSError, psutil.Error):  # it has just ended
            more = _used_on_linux(one) if sys.platform == "linux" else _used_elsewhere(one)
            memory, threads, descriptors = memory + more.memory, threads + more.threads, descriptors + more.descriptors
    return Used(memory, threads, len(found), descriptors)


def exact_memory(pid: int) -> int:
    """Return the bytes of memory that no file stands for, what forks share by its share for each, of what has come."""
    found: list[int] = []
    for child in list(islice(_descendants(pid), _MOST)):
        # A program that is about to be started runs in the memory of the one that starts it.
        if not any(_in_same_memory(child, other) for other in found):
            found.append(child)
    return sum(_told(child, _share) for child in found)


def unlinked(pid: int) -> float:
    """Return how many bytes are in files that have no name any more, and that what has come from a process holds.

    How large a file is that is mapped and not open nobody is told: infinitely.
    """
    sizes: dict[tuple[int, int], int] = {}
    mapped: set[int] = set()
    try:
        for child in islice(_descendants(pid), _MOST):
            for task in _tasks(child):
                for status in _open_files(task):
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                        sizes[status.st_dev, status.st_ino] = status.st_blocks * 512
            mapped |= _mapped_without_name(child)
    except PermissionError:
        return math.inf
    return math.inf if mapped - {inode for _, inode in sizes} else sum(sizes.values())


def _alive(pid: int) -> psutil.Process | None:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        # The first thread may end before the others, and the system then speaks of a zombie.
        return process if process.status() != psutil.STATUS_ZOMBIE or len(_tasks(pid)) > 1 else None
    return None


# A process chooses its name and its threads' names, and may make them look like a line of a table. So nothing is read
# here that stands behind a name in the same line, as psutil reads the number of threads.


def _used_on_linux(pid: int) -> Used:
    tasks = _tasks(pid)
    return Used(_told(pid, _own_memory), len(tasks), 1, _descriptors(tasks))


def _used_elsewhere(pid: int) -> Used:
    process = psutil.Process(pid)
    return Used(process.memory_info().rss, process.num_threads())


def _tasks(pid: int) -> list[str]:
    """Return where Linux tells of each of a process's threads; nothing elsewhere."""
    with suppress(OSError):
        return [f"/proc/{pid}/task/{task}" for task in os.listdir(f"/proc/{pid}/task")]
    return []


def _told(pid: int, read: Callable[[str], int]) -> int:
    """Ask a process's threads until one knows; the first may have ended, and others end meanwhile. 0 if all have."""
    for _ in range(_TRIES):
        for task in _tasks(pid):
            with suppress(OSError):
                if told := read(task):
                    return told
        if not is_alive(pid):
            break
    return 0


def _descriptors(tasks: list[str]) -> int:
    """Count what is open; threads share a table, unless one has its own. A program may show nothing to others."""
    tables: list[list[str]] = []
    for task in tasks:
        try:
            table = os.listdir(f"{task}/fd")
        except PermissionError:
            return _UNTOLD
        except OSError:  # it has just ended
            continue
        if table not in tables[:1]:
            tables.append(table)
    return sum(map(len, tables))


def _open_files(task: str) -> Iterator[os.stat_result]:
    """Look at what a thread has open. Raises PermissionError if it may not be seen."""
    with _unless_ended():
        for descriptor in os.listdir(f"{task}/fd"):
            with _unless_ended():
                yield os.stat(f"{task}/fd/{descriptor}")


def _mapped_without_name(pid: int) -> set[int]:
    """Return the inodes of mapped files that have no name any more. Raises PermissionError if they may not be seen."""
    with _unless_ended():
        lines = Path(f"/proc/{pid}/maps").read_bytes().split(b"\n")
        return {int(line.split()[4]) for line in lines if line.endswith(b" (deleted)")}
    return set()


def _unless_ended() -> suppress:
    return suppress(FileNotFoundError, ProcessLookupError)


def _in_same_memory(one: int, other: int) -> bool:
    if sys.platform != "linux" or not _KCMP:
        return False
    return bool(ctypes.CDLL(None).syscall(_KCMP, one, other, _KCMP_VM, 0, 0) == 0)


def _own_memory(task: str) -> int:
    resident, shared = (int(pages) for pages in Path(f"{task}/statm").read_bytes().split()[1:3])
    return (resident - shared) * _PAGE + _said(f"{task}/status", _UNSEEN)


def _share(task: str) -> int:
    unseen = _said(f"{task}/status", _UNSEEN)
    try:
        return _said(f"{task}/smaps_rollup", (b"Pss_Anon:", b"Pss_Shmem:")) + unseen
    except PermissionError:  # a program that nobody may read
        return _own_memory(task)


def _said(path: str, names: tuple[bytes, ...]) -> int:
    """Add up what the lines of these names say in KiB; return bytes."""
    lines = Path(path).read_bytes().split(b"\n")
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(names))


def _descendants(pid: int) -> Iterator[int]:
    waiting = [pid]
    while waiting:
        for child in _children(waiting.pop()):
            yield child
            waiting.append(child)


def _children(pid: int) -> list[int]:
    """Return a process's children; Linux lists them by thread, which is a hundred times as fast as a look at all."""
    try:
        lists = [Path(f"/proc/{pid}/task/{task}/children").read_text() for task in os.listdir(f"/proc/{pid}/task")]
        return [int(child) for line in lists for child in line.split()]
    except FileNotFoundError:
        with suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children()]
        return []
    except OSError:
        return []
