"""What a submission's processes use, seen from outside.

A process chooses its name and its threads' names, and may make them look like a line of a table. So nothing is read
here that stands behind a name in the same line, as psutil reads the number of threads.
"""

import ctypes
import math
import os
import platform
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from kicourse.grading.processes import all_descendants, is_alive, tasks

MOST_MAPPINGS = 500_000
"""As many pieces of memory as are counted: the kernel keeps 200 bytes for each."""
_UNTOLD = 1 << 62  # as what counts what a process keeps to itself
_KCMP, _KCMP_VM = {"x86_64": 312, "aarch64": 272}.get(platform.machine(), 0), 1  # a system call's number, and its kind
_UNSEEN = (b"VmPTE:", b"VmSwap:", b"HugetlbPages:")  # KiB that Linux keeps for a process beside its resident memory
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
_TRIES = 20
_FEW = 3  # files without a name that a library may have mapped, of the weights of a model, say


@dataclass(frozen=True)
class Used:
    """What processes use in all: bytes of memory that no file stands for, threads, processes, open descriptors.

    What forks share counts for each of them: `memory` is the most that it can be, and `exact_memory` takes longer.
    Nothing is `certain` if one ended or came while they were looked at: it may have what another had, whom nobody saw.
    """

    memory: int = 0
    threads: int = 0
    processes: int = 0
    descriptors: int = 0
    mappings: int = 0
    certain: bool = True


def used(pid: int, *, itself: bool = False) -> Used:
    """Return what all that has come from a process uses, dead ones included; with `itself`, it counts too."""
    own = [pid] if itself else []
    found = [*own, *all_descendants(pid)]
    each = [_used_on_linux(one) if sys.platform == "linux" else _used_elsewhere(one) for one in found]
    return Used(
        sum(one.memory for one in each),
        sum(one.threads for one in each),
        len(found),
        sum(one.descriptors for one in each),
        _mappings(found),
        all(one.certain for one in each) and found == [*own, *all_descendants(pid)],
    )


def exact_memory(pid: int) -> int:
    """Return the bytes of memory that no file stands for, what forks share by its share for each, of what has come."""
    found: list[int] = []
    for child in list(all_descendants(pid)):
        # A program that is about to be started runs in the memory of the one that starts it.
        if not any(_in_same_memory(child, other) for other in found):
            found.append(child)
    return sum(_told(child, _share) for child in found)


def unlinked(pid: int) -> float:
    """Return how many bytes are in files that have no name any more, and that what has come from a process holds.

    How large a file is that is mapped and not open nobody is told. What is mapped of it counts, which is all of it for
    whoever reads one; of more than three such files nothing is known, and they count infinitely.
    """
    sizes: dict[tuple[int, int], int] = {}
    mapped: dict[int, int] = {}
    try:
        for child in all_descendants(pid):
            for task in tasks(child):
                for status in _open_files(task):
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                        sizes[status.st_dev, status.st_ino] = status.st_blocks * 512
            for inode, end in _mapped_without_name(child).items():
                mapped[inode] = max(mapped.get(inode, 0), end)
        known = {inode for _, inode in sizes} | set(_mapped_without_name(pid))  # libraries that were replaced meanwhile
    except PermissionError:
        return math.inf
    unknown = [end for inode, end in mapped.items() if inode not in known]
    return math.inf if len(unknown) > _FEW else sum(sizes.values()) + sum(unknown)


def _used_on_linux(pid: int) -> Used:
    threads = tasks(pid)
    memory = _told(pid, _own_memory)
    return Used(memory, len(threads), 1, _descriptors(threads), certain=memory > 0)


def _used_elsewhere(pid: int) -> Used:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return Used(process.memory_info().rss, process.num_threads())
    return Used(certain=False)


def _mappings(pids: list[int]) -> int:
    """Count what is mapped, as far as that matters; nothing elsewhere."""
    count = 0
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/maps", "rb", buffering=0) as file:
            while count < MOST_MAPPINGS and (piece := file.read(2**16)):
                count += piece.count(b"\n")
    return count


def _told(pid: int, read: Callable[[str], int]) -> int:
    """Ask a process's threads until one knows; the first may have ended, and others end meanwhile. 0 if all have."""
    for _ in range(_TRIES):
        for task in tasks(pid):
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


def _mapped_without_name(pid: int) -> dict[int, int]:
    """Return how far mapped files without a name reach, by inode. Raises PermissionError if they may not be seen."""
    ends: dict[int, int] = {}
    with _unless_ended():
        for line in Path(f"/proc/{pid}/maps").read_bytes().split(b"\n"):
            if line.endswith(b" (deleted)"):
                span, _, offset, _, inode = line.split()[:5]
                start, end = (int(one, 16) for one in span.split(b"-"))
                ends[int(inode)] = max(ends.get(int(inode), 0), int(offset, 16) + end - start)
    return ends


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
