"""Processes that do not want to be found, what they use, and an end to them."""

import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from kicourse.grading import processes, usage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: it forks, and reads /proc")

ADOPTS = "from kicourse.grading.fork_server import adopt_orphans\nadopt_orphans()"
LOOKS_DEAD = """
import ctypes, os, threading, time
if os.fork() == 0:
    held = bytearray(b"x") * (64 * 2**20)
    ctypes.CDLL(None).prctl(15, b"Threads:\\t1", 0, 0, 0)  # a name like a line of /proc/PID/status
    threading.Thread(target=time.sleep, args=(60,)).start()
    ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)  # exit: of a thread, not of its process
print(flush=True)
time.sleep(60)
"""
HOPS = """
import os, time
if os.fork() == 0:
    while True:
        if os.fork():
            os._exit(0)
print(flush=True)
time.sleep(60)
"""

SHARES = """
import os, time
held = bytearray(b"x") * (64 * 2**20)
for _ in range(10):
    if os.fork() == 0:
        time.sleep(60)
print(flush=True)
time.sleep(60)
"""
SHARES_ALL = """
import ctypes, os, time
stack = (ctypes.c_char * 2**20)()
if os.fork() == 0:
    held = bytearray(b"x") * (64 * 2**20)
    libc = ctypes.CDLL(None)
    pause = ctypes.cast(libc.pause, ctypes.c_void_p)
    libc.clone(pause, ctypes.c_void_p(ctypes.addressof(stack) + 2**19), 0x111, None)  # CLONE_VM | SIGCHLD
    print(flush=True)
    time.sleep(60)
time.sleep(60)
"""
CHAIN = """
import ctypes, os, threading, time
def next_one():
    time.sleep(0.002)
    threading.Thread(target=next_one).start()
if os.fork() == 0:
    held = bytearray(b"x") * (64 * 2**20)
    next_one()
    print(flush=True)
    ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)
time.sleep(60)
"""
MAPS = """
import mmap, os, time
if os.fork() == 0:
    kind = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
    held = mmap.mmap(-1, 64 * 2**30, flags=kind, prot=mmap.PROT_READ)
    held.madvise(mmap.MADV_NOHUGEPAGE)
    for place in range(0, len(held), 2 * 2**20):
        held[place]
    connections = [os.pipe() for _ in range(60)]
    print(flush=True)
time.sleep(60)
"""
MANY_PIECES = """
import ctypes, os, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
start = libc.mmap(None, ctypes.c_size_t(20_000 * 4096), 0, 0x22, -1, 0)
for page in range(0, 20_000, 2):
    libc.mprotect(ctypes.c_void_p(start + page * 4096), 4096, 1)
if os.fork() == 0:
    time.sleep(60)
print(flush=True)
time.sleep(60)
"""
UNLINKS = """
import ctypes, os, tempfile, time
if os.fork() == 0:
    for _ in range({count}):
        descriptor, path = tempfile.mkstemp()
        os.posix_fallocate(descriptor, 0, 8 * 2**20)
        os.unlink(path)
        {then}
    print(flush=True)
    time.sleep(60)
time.sleep(60)
"""
ONLY_MAPS = "ctypes.CDLL(None).mmap(None, {bytes}, 1, 1, descriptor, 0); os.close(descriptor)"


@contextmanager
def _running(program: str) -> Iterator[int]:
    """Run a program that adopts whatever comes from it; return its process's id."""
    with subprocess.Popen([sys.executable, "-c", f"{ADOPTS}\n{program}"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            while not processes.clear(process.pid):
                pass
            process.kill()


def test_an_interrupt_waits_for_the_end_of_a_block() -> None:
    done = []

    def block() -> None:
        with processes.interrupts_later():
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_one_that_looks_dead_is_found() -> None:
    with _running(LOOKS_DEAD) as pid:
        child = psutil.Process(pid).children()[0]
        while child.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert processes.descendants(pid) == [child]
        used = usage.used(pid)
        assert used.memory >= 64 * 2**20
        assert usage.exact_memory(pid) >= 64 * 2**20
        assert (used.threads, used.processes) == (2, 1)
        assert processes.clear(pid)
        assert child.num_threads() == 1, "the first thread's remains"


def test_what_forks_share_counts_once() -> None:
    with _running(SHARES) as pid:
        assert usage.used(pid).memory > 600 * 2**20
        assert usage.exact_memory(pid) < 200 * 2**20


def test_a_program_about_to_be_started_counts_once() -> None:
    with _running(SHARES_ALL) as pid:
        assert usage.used(pid).processes == 2
        assert 64 * 2**20 < usage.exact_memory(pid) < 120 * 2**20


def test_threads_that_end_one_after_the_other_hide_no_memory() -> None:
    with _running(CHAIN) as pid:
        assert all(usage.used(pid).memory > 64 * 2**20 for _ in range(50))
        assert all(usage.exact_memory(pid) > 64 * 2**20 for _ in range(50))


def test_what_the_kernel_keeps_for_a_process_counts() -> None:
    with _running(MAPS) as pid:
        used = usage.used(pid)
        assert used.memory > 100 * 2**20, "a page of a table for every two mebibytes"
        assert usage.exact_memory(pid) > 100 * 2**20
        assert used.descriptors > 100


def test_files_without_a_name_are_found() -> None:
    with _running(UNLINKS.format(count=1, then="pass")) as pid:
        assert 8 * 2**20 <= usage.unlinked(pid) < 9 * 2**20
    with _running(UNLINKS.format(count=1, then=ONLY_MAPS.format(bytes=8 * 2**20))) as pid:
        assert usage.unlinked(pid) == 8 * 2**20, "as a library does that reads a file"
    with _running(UNLINKS.format(count=4, then=ONLY_MAPS.format(bytes=4096))) as pid:
        assert usage.unlinked(pid) == math.inf, "nobody can tell how much there is"


def test_one_that_hops_is_caught() -> None:
    with _running(HOPS) as pid:
        assert processes.clear(pid)
        remains = {child.pid for child in psutil.Process(pid).children()}
        time.sleep(0.05)
        assert {child.pid for child in psutil.Process(pid).children()} == remains


def test_one_that_goes_on_as_another_is_no_certain_sight() -> None:
    with _running(HOPS) as pid:
        assert not all(usage.used(pid).certain for _ in range(50))
    with _running(SHARES) as pid:
        assert usage.used(pid).certain


def test_pieces_of_mapped_memory_are_counted() -> None:
    with _running(MANY_PIECES) as pid:
        assert 20_000 < usage.used(pid).mappings < 40_000
