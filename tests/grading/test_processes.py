"""Processes that do not want to be found, and an end to them."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from kicourse.grading import processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is tried here can be done on Linux only")

ADOPTS = "from kicourse.grading.fork_server import adopt_orphans\nadopt_orphans()"
LOOKS_DEAD = """
import ctypes, os, threading, time
if os.fork() == 0:
    held = bytearray(b"x") * (64 * 2**20)
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


def test_one_that_looks_dead_is_found() -> None:
    with _running(LOOKS_DEAD) as pid:
        child = psutil.Process(pid).children()[0]
        while child.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert processes.descendants(pid) == [child]
        memory, threads = processes.used(pid)
        assert memory >= 64 * 2**20
        assert threads == 2
        assert processes.clear(pid)
        assert child.num_threads() == 1, "the first thread's remains"


def test_one_that_hops_is_caught() -> None:
    with _running(HOPS) as pid:
        assert processes.clear(pid)
        remains = {child.pid for child in psutil.Process(pid).children()}
        time.sleep(0.05)
        assert {child.pid for child in psutil.Process(pid).children()} == remains
