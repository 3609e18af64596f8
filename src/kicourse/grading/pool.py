"""Where jobs are graded: on this machine, by several workers at once."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from itertools import islice
from typing import Protocol

from kicourse.errors import UserError
from kicourse.grading.assembling import ungraded
from kicourse.grading.job import Job, Outcome
from kicourse.grading.worker import Worker, WorkerLostError
from kicourse.syllabus import course

_TRIES = 3
_AHEAD = 2  # jobs a worker that are read before they are needed: what waits takes memory


class Pool(Protocol):
    """Grades jobs, on this machine or on many."""

    def run(self, jobs: Iterator[Job]) -> Iterator[Outcome]:
        """Yield the outcome of each job as it is there, in any order; `jobs` is read no faster than needed."""


class LocalPool:
    """Grades on this machine with so many workers. `environment` leads submissions to the embedded GPT.

    Raises UserError on Windows, where no process can fork itself.
    """

    def __init__(self, workers: int, environment: Mapping[str, str] | None = None) -> None:
        if os.name == "nt":
            raise UserError("Notebooks are judged on Linux and macOS. On Windows, run this command in WSL.")
        self.workers, self.environment = workers, environment

    def run(self, jobs: Iterator[Job]) -> Iterator[Outcome]:
        """Yield the outcome of each job as it is there."""
        desks = Desks(self.environment)
        executor = ThreadPoolExecutor(self.workers, thread_name_prefix="kicourse-worker")
        try:
            yield from in_flight(jobs, lambda job: executor.submit(desks.grade, job), self.workers * _AHEAD)
        finally:
            desks.stop()
            executor.shutdown(cancel_futures=True)
            desks.close()


def in_flight(jobs: Iterator[Job], submit: "Callable[[Job], Future[Outcome]]", most: int) -> Iterator[Outcome]:
    """Keep at most so many jobs under way; yield outcomes as they come."""
    waiting: set[Future[Outcome]] = {submit(job) for job in islice(jobs, most)}
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        waiting |= {submit(job) for job in islice(jobs, len(done))}
        for future in done:
            yield future.result()


class Desks:
    """A worker for each thread that grades; another one when the next job is of another unit."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.environment = environment
        self._own = threading.local()
        self._all: list[tuple[Worker, ExitStack]] = []
        self._stopped = False

    def grade(self, job: Job) -> Outcome:
        """Grade a job in this thread. A worker that is lost through no fault of the submission is replaced."""
        message = ""
        for _ in range(_TRIES):
            if self._stopped:
                break
            try:
                return self._worker(job).grade(job)
            except Exception as error:  # a fault of ours costs nobody but this submission anything
                message = str(error) if isinstance(error, WorkerLostError) else f"{type(error).__name__}: {error}"
                self._leave()
        return ungraded(job, "error", f"This submission could not be graded: {message or 'grading was stopped'}.")

    def stop(self) -> None:
        """Let what is under way come to an end at once."""
        self._stopped = True
        for worker, _ in list(self._all):
            worker.stopped.set()

    def close(self) -> None:
        """End every worker."""
        while self._all:
            self._all.pop()[1].close()

    def _worker(self, job: Job) -> Worker:
        kept: tuple[str, bool, Worker] | None = getattr(self._own, "kept", None)
        if kept is None or kept[:2] != (job.unit, job.sandboxed):
            self._leave()
            unit, stack = course().unit(job.unit), ExitStack()
            worker = stack.enter_context(Worker(unit, job.sandboxed, self.environment if unit.gpt else None))
            self._own.kept = kept = (job.unit, job.sandboxed, worker)
            self._own.entry = (worker, stack)
            self._all.append(self._own.entry)
        return kept[2]

    def _leave(self) -> None:
        if getattr(self._own, "kept", None) is not None:
            self._own.kept = None
            self._all.remove(self._own.entry)
            self._own.entry[1].close()
