"""Running code in forked processes: each has a copy of everything, and can be killed with all that it started."""

import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_GRACE = 5  # seconds after its limit in which a process that nobody watches any more ends itself


@dataclass
class _Fork:
    """A running process, what it has said so far, and when its time is over."""

    number: int
    pid: int
    pipe: int
    deadline: float
    said: bytearray = field(default_factory=bytearray)


def run(
    jobs: Sequence[Callable[[], Any]], seconds: float, workers: int = 2, silent: bool = True
) -> Iterator[tuple[int, Any]]:
    """Run each job in a fork of this process, several at once; yield (its number, what it returned) as they end.

    What a job returns crosses as JSON. A job that raises, dies or takes longer than `seconds` yields None, and
    whatever processes it started end with it. What a silent job prints goes nowhere.
    """
    waiting = list(enumerate(jobs))
    running: dict[int, _Fork] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                fork = _start(*waiting.pop(0), seconds, silent)
                running[fork.pipe] = fork
            for fork in _ended(running):
                del running[fork.pipe]
                _end(fork)
                yield fork.number, _said(fork)
    finally:
        for fork in running.values():
            _end(fork)


def _ended(running: dict[int, _Fork]) -> list[_Fork]:
    """Wait until something happens; return the forks that are done or out of time."""
    patience = min(fork.deadline for fork in running.values()) - time.monotonic()
    readable, _, _ = select.select(list(running), [], [], max(0.0, patience))
    done = []
    for pipe in readable:
        piece = os.read(pipe, 65536)
        running[pipe].said += piece
        # A process that the job started may hold the pipe open, so the line's end is what counts.
        if not piece or piece.endswith(b"\n"):
            done.append(running[pipe])
    now = time.monotonic()
    return done + [fork for fork in running.values() if fork.deadline <= now and fork not in done]


def _start(number: int, job: Callable[[], Any], seconds: float, silent: bool) -> _Fork:
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return _Fork(number, pid, reader, time.monotonic() + seconds)
    status = 1
    try:
        os.setsid()
        os.close(reader)
        signal.alarm(int(seconds) + _GRACE)
        if silent:
            _be_silent()
        os.write(writer, json.dumps(job()).encode() + b"\n")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _be_silent() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (for the rest of this process)


def _end(fork: _Fork) -> None:
    for kill in (os.killpg, os.kill):  # the group is not there yet if the fork was only just made
        with suppress(ProcessLookupError, PermissionError):
            kill(fork.pid, signal.SIGKILL)
    os.close(fork.pipe)
    os.waitpid(fork.pid, 0)


def _said(fork: _Fork) -> Any:
    return json.loads(fork.said) if fork.said.endswith(b"\n") else None
