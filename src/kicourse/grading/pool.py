"""Where jobs are graded: on this machine, by several workers at once."""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import count, islice
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Protocol

from kicourse.errors import UserError
from kicourse.grading import processes
from kicourse.grading.assembling import ungraded
from kicourse.grading.job import Job, Outcome
from kicourse.grading.servers import WorkerLostError
from kicourse.grading.worker import Worker
from kicourse.syllabus import Limits, Unit, course

_TRIES = 5
_MANY = 32  # jobs that are worth a second worker from the start, however little each of them takes
_LOOK_SECONDS = 1.0  # how often it is asked whether more workers are needed, while nothing is done
_MOST_IDLE_WORK = 0.05  # seconds of the processor in which a GPT has answered nothing
_LEAST_ROOM = 16 * 2**20  # bytes of a disk, for what a worker and a submission write
_AHEAD = 2  # jobs a worker that are read before they are needed: what waits takes memory


class Pool(Protocol):
    """Grades jobs, on this machine or on many."""

    def run(self, jobs: Iterator[Job]) -> Iterator[Outcome]:
        """Yield the outcome of each job as it is there, in any order; `jobs` is read no faster than needed."""


class LocalPool:
    """Grades on this machine with so many workers. `environment` leads submissions to a GPT, as with `Desks`.

    A worker takes seconds to start. If it is known how many jobs to expect, there is one at first, two for many jobs.
    Others come when the work that is left is worth their start: for a few submissions, a second one would be ready when
    all is done.

    Use it as a context manager.
    """

    def __init__(self, workers: int, environment: Mapping[str, str] | None = None, expected: int | None = None) -> None:
        self.workers, self.expected = workers, expected
        self._finished, self._seconds = 0, 0.0
        self._desks = Desks(environment)
        self._threads: list[threading.Thread] = []
        self._waiting: SimpleQueue[Job | None] = SimpleQueue()
        self._done: SimpleQueue[Outcome] = SimpleQueue()

    def __enter__(self) -> "LocalPool":
        """Start nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Break off what is under way, and end every worker."""
        self._desks.stop()
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()
        self._desks.close()

    def prepare(self, unit: str, limits: Limits, sandboxed: bool) -> None:
        """Start a worker for a unit in the background, before the first job is there."""
        self._hire(lambda: self._desks.prepare(unit, limits, sandboxed))

    def run(self, jobs: Iterator[Job]) -> Iterator[Outcome]:
        """Yield the outcome of each job as it is there."""
        under_way = 0
        while True:
            for job in islice(jobs, self.workers * _AHEAD - under_way):
                self._waiting.put(job)
                under_way += 1
            if not under_way:
                return
            while len(self._threads) < min(self._wanted(), under_way):
                self._hire()
            with suppress(Empty):
                outcome = self._done.get(timeout=_LOOK_SECONDS)
                under_way -= 1
                self._finished += 1
                self._seconds += outcome.seconds
                yield outcome

    def _wanted(self) -> int:
        """Return how many workers the work is worth: one, and one more for each two starts that it lasts."""
        desks = self._desks
        if self.expected is None:
            return self.workers
        if not desks.ready:
            return 1 if self.expected < _MANY else min(self.workers, 2)
        mean = self._seconds / self._finished if self._finished else time.monotonic() - desks.ready
        left = (self.expected - self._finished) * mean
        return max(1, min(self.workers, 1 + int(left / (2 * desks.start_seconds))))

    def _hire(self, first: Callable[[], None] = lambda: None) -> None:
        def work() -> None:
            first()
            while (job := self._waiting.get()) is not None:
                self._done.put(self._desks.grade(job))

        thread = threading.Thread(target=work, name="kicourse-worker", daemon=True)
        thread.start()
        self._threads.append(thread)


def _full_disk() -> str:
    """Say it, to be added to a reason, where what is temporary lies on a disk that is full."""
    with suppress(OSError):  # there is no place for what is temporary, say
        place = tempfile.gettempdir()
        if shutil.disk_usage(place).free < _LEAST_ROOM:
            return f"; there is hardly any room left in {place}: make some, or name another folder (TMPDIR)"
    return ""


class Desks:
    """A worker for each thread that grades; another one when the next job is of another unit.

    `environment` leads submissions to a GPT. Without one, each worker whose unit asks for it has an embedded GPT of its
    own: a submission may ask it for so much that others would wait in vain, or bring it down.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = environment
        self._own = threading.local()
        self._all: list[tuple[Worker, ExitStack]] = []
        self._places = count()
        self._stopped = False
        self.ready = 0.0
        """When the first worker was ready, on the monotonic clock."""
        self.start_seconds = 1.0

    def grade(self, job: Job) -> Outcome:
        """Grade a job in this thread. A worker that is lost through no fault of the submission is replaced."""
        message = ""
        for _ in range(_TRIES):
            if self._stopped:
                break
            try:
                worker = self._worker(job.unit, job.limits, job.sandboxed)
                worker.core = self._core()
                outcome = worker.grade(job)
                self._leave_if_upset()
                return outcome
            except Exception as error:  # a fault of ours costs nobody but this submission anything
                is_ours = isinstance(error, WorkerLostError | UserError)
                message = str(error) if is_ours else f"{type(error).__name__}: {error}"
                self._leave()
        reason = (message.rstrip(".") or "grading was stopped") + _full_disk()
        return ungraded(job, "error", f"This submission could not be graded: {reason}.")

    def prepare(self, unit: str, limits: Limits, sandboxed: bool) -> None:
        """Have a worker ready in this thread; if that fails, the first job will find out why."""
        with suppress(Exception):
            self._worker(unit, limits, sandboxed)

    def _core(self) -> int | None:
        """Return the core of this thread's worker; none as long as there are more cores than workers."""
        cores = processes.cores()
        return cores[self._own.place % len(cores)] if 1 < len(cores) <= len(self._all) else None

    def stop(self) -> None:
        """Let what is under way come to an end at once."""
        self._stopped = True
        for worker, _ in list(self._all):
            worker.stopped.set()

    def close(self) -> None:
        """End every worker."""
        while self._all:
            self._all.pop()[1].close()

    def _worker(self, slug: str, limits: Limits, sandboxed: bool) -> Worker:
        kept: tuple[Unit, bool, Worker] | None = getattr(self._own, "kept", None)
        unit = replace(course().unit(slug), limits=limits)  # a class may have its own
        if kept is None or kept[:2] != (unit, sandboxed):
            self._leave()
            stack = ExitStack()
            environment, self._own.gpt = self._environment, 0
            if unit.gpt and environment is None:
                from kicourse.models import gpt

                environment, self._own.gpt = stack.enter_context(gpt.apart())
            worker = stack.enter_context(Worker(unit, sandboxed, environment if unit.gpt else None))
            self._own.kept = kept = (unit, sandboxed, worker)
            self._own.entry = (worker, stack)
            self._all.append(self._own.entry)
            if not hasattr(self._own, "place"):
                self._own.place = next(self._places)
            self._own.worked = 0.0
            if self._stopped:
                worker.stopped.set()
            begun = time.monotonic()
            worker.start()
            if not self.ready:
                self.ready = time.monotonic()
                self.start_seconds = max(1.0, self.ready - begun)
        return kept[2]

    def _leave_if_upset(self) -> None:
        """Leave a worker whose GPT a submission has brought down, or keeps busy: that is not the next one's affair."""
        gpt = self._own.gpt
        if gpt and processes.worked(gpt) - self._own.worked > _MOST_IDLE_WORK:
            if not processes.comes_to_rest(gpt):
                self._leave()
            self._own.worked = processes.worked(gpt)

    def _leave(self) -> None:
        if getattr(self._own, "kept", None) is not None:
            self._own.kept = None
            self._all.remove(self._own.entry)
            self._own.entry[1].close()
