"""Where jobs are graded: on a running Dask cluster, whose workers need kicourse installed and nothing else of ours.

Jobs and outcomes travel as bytes, so there is no shared disk. A worker of the cluster grades as one machine does, with
`Desks`; it keeps them between the jobs of a run.
"""

import atexit
import logging
import pickle
import pkgutil
import platform
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from queue import Empty, SimpleQueue
from time import monotonic
from types import TracebackType
from typing import Any

import kicourse
from kicourse.errors import UserError
from kicourse.grading import processes, sandbox
from kicourse.grading.assembling import ungraded
from kicourse.grading.job import Job, Outcome
from kicourse.grading.pool import Desks
from kicourse.grading.store import software as software_here
from kicourse.models import weights
from kicourse.models.embedded import GPT
from kicourse.syllabus import course

AHEAD = 4
"""Jobs a thread of the cluster that are under way: what waits takes memory."""
_CONNECT_SECONDS = 10
_LOOK_SECONDS = 5.0  # how often the cluster is looked at while nothing comes back
_WITHOUT_WORKERS_SECONDS = 60.0  # by then, a worker that died has been started again
_IDLE_SECONDS = 300.0  # what a run keeps on a worker ends by itself when its coordinator has gone without a word
_LARGEST = "1GiB"
_AGAIN = "Then run the same command again: it goes on where it stopped"


class ClusterPool:
    """Grades on the Dask cluster whose scheduler is at `address`. Use it as a context manager.

    Entering it raises UserError if the cluster cannot be used: nobody answers, it has no workers, or a worker would
    give other marks than this machine or lacks the sandbox (with `sandboxed`) or the GPT (with `gpt`).
    """

    def __init__(self, address: str, sandboxed: bool = True, gpt: bool = False) -> None:
        self.address, self.sandboxed, self.gpt = address, sandboxed, gpt
        self._run = uuid.uuid4().hex
        self._under_way: dict[Any, Job] = {}

    def __enter__(self) -> "ClusterPool":
        """Connect, and look whether every worker grades as this machine does."""
        self._client = _connect(self.address)
        try:
            if not self._threads():
                raise UserError(f"The Dask cluster at {self.address} has no workers. {self._start_some()}")
            self._require_dask()
            self._require_workers()
        except BaseException:
            self._client.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up what is under way, and let the workers end what they keep for this run."""
        with suppress(Exception):
            if self._client.status == "running":
                self._client.cancel(list(self._under_way), force=True)
                self._client.run(end_run, self._run, on_error="ignore")
        self._under_way.clear()
        with suppress(Exception):
            self._client.close()

    def run(self, jobs: Iterator[Job]) -> Iterator[Outcome]:
        """Yield the outcome of each job as it is there.

        What a worker had at hand when it died is graded by others. Where workers die again and again, one of the jobs
        that they had at hand is to blame: each is tried once more, alone, and given up if that is the one.

        Raises UserError if the cluster can no longer be used.
        """
        done: SimpleQueue[Any] = SimpleQueue()
        suspects: list[Job] = []
        exhausted = False
        most = self._threads() * AHEAD
        while True:
            while not exhausted and len(self._under_way) + len(suspects) < most:
                job = next(jobs, None)
                if job is None:
                    exhausted = True
                else:
                    self._submit(job, done)
            alone = not self._under_way
            if alone:
                if not suspects:
                    return
                self._submit(suspects.pop(), done)
            future = self._next(done)
            outcome = self._outcome(future)
            job = self._under_way.pop(future)
            future.release()
            if outcome is not None:
                yield outcome
            elif alone:
                yield ungraded(job, "error", "This submission could not be graded: the workers that try it die.")
            else:
                suspects.append(job)

    def _submit(self, job: Job, done: "SimpleQueue[Any]") -> None:
        import dask

        call = pickle.dumps(_Call(self._run, self.sandboxed, software_here(), job))
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": _LARGEST}):
            future = self._client.submit(pickle.loads, call, key=f"kicourse-{job.unit}-{uuid.uuid4().hex}", pure=False)
        self._under_way[future] = job
        future.add_done_callback(done.put)

    def _next(self, done: "SimpleQueue[Any]") -> Any:
        """Return the next future that is done. Raises UserError if there is no hope of one."""
        last_seen = monotonic()
        while monotonic() - last_seen < _WITHOUT_WORKERS_SECONDS:
            with suppress(Empty):
                return done.get(timeout=_LOOK_SECONDS)
            if self._threads():
                last_seen = monotonic()
        raise UserError(f"The Dask cluster at {self.address} has lost its workers. {self._start_some()} {_AGAIN}.")

    def _outcome(self, future: Any) -> Outcome | None:
        """Return what came of a job; None if workers died again and again while they had it at hand."""
        from distributed import CancelledError, KilledWorker

        try:
            outcome: Outcome = future.result()
        except KilledWorker:
            return None
        except CancelledError as error:
            raise UserError(
                f"The Dask cluster at {self.address} was stopped or restarted. Start it if it does not run. {_AGAIN}."
            ) from error
        except Exception as error:
            # What goes wrong with a submission is its outcome. So it is the worker, one that has joined since.
            self._require_workers()
            what = f"{type(error).__name__}: {error}"
            return ungraded(self._under_way[future], "error", f"This submission could not be graded ({what}).")
        return outcome

    def _threads(self) -> int:
        """Return how many threads the workers have. Raises UserError if the scheduler has gone."""
        try:
            return sum(self._client.nthreads().values())
        except Exception as error:
            raise UserError(
                f"The Dask scheduler at {self.address} has gone ({type(error).__name__}). Start it, and its workers. "
                f"{_AGAIN}."
            ) from error

    def _require_dask(self) -> None:
        """Raise UserError unless all have this machine's release of Dask: its protocol is that of one release."""
        found = self._client.get_versions()
        own = _release(found["client"])
        places = {"The scheduler": found["scheduler"]} | {
            f"The worker {at}": one for at, one in found["workers"].items()
        }
        for place, about in places.items():
            if (other := _release(about)) != own:
                raise UserError(
                    f"{place} has Dask's `distributed` {other}, this machine {own}; the two may not understand each "
                    f"other. Install the same on both: pip install 'distributed=={own}.*'"
                )

    def _require_workers(self) -> None:
        """Raise UserError, naming the worker, if one has no kicourse, another kicourse, or lacks what it needs."""
        own = kicourse.__version__
        install = f"Install it there (pip install 'kicourse[cluster]=={own}') and start the worker again."
        # Nothing of ours goes to a worker before it is known to have kicourse.
        for worker, version in self._ask(pkgutil.resolve_name, "kicourse:__version__").items():
            if isinstance(version, Exception):
                raise UserError(f"{self._named(worker)} cannot import kicourse ({version}). {install}")
            if version != own:
                raise UserError(f"{self._named(worker)} has kicourse {version}, this machine {own}. {install}")
        for worker, reason in self._ask(unfit, self.sandboxed, software_here(), self.gpt).items():
            if reason:
                raise UserError(f"{self._named(worker)} {reason}")

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Call a function on every worker; return what each answers, or the exception it raises."""
        answers: dict[str, Any] = self._client.run(function, *arguments, on_error="return")
        return {worker: answer for worker, answer in answers.items() if not isinstance(answer, OSError)}

    def _named(self, worker: str) -> str:
        host = self._client.run(platform.node, workers=[worker], on_error="return").get(worker)
        return f"The worker {worker} (on {host})"

    def _start_some(self) -> str:
        return f"Start some on machines with kicourse: dask worker {self.address}"


class _Call:
    """A call of `grade_here`, as data: who loads its pickle makes the call.

    The scheduler loads what a task is made of, and need not have kicourse: it sees `pickle.loads` and bytes.
    """

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return grade_here, self.arguments


def _connect(address: str) -> Any:
    """Return a client of the scheduler at this address. Raises UserError if there is none."""
    try:
        with processes.interrupts_later():
            from distributed import Client
            from distributed.versions import VersionMismatchWarning
    except ImportError as error:
        raise UserError("Grading on a Dask cluster needs Dask: pip install 'kicourse[cluster]'") from error
    # What matters of what it has to say is an error of ours.
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    result: SimpleQueue[Any] = SimpleQueue()

    def connect() -> None:
        try:
            result.put(Client(address, timeout=_CONNECT_SECONDS, set_as_default=False, name="kicourse"))
        except MemoryError:  # it has taken the first bytes that came for the length of a message
            result.put(ConnectionError("what listens there speaks another protocol"))
        except Exception as error:
            result.put(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionMismatchWarning)  # `_require_dask` says what matters of it
        # In a thread, since a server that takes the connection and says nothing would be waited for endlessly.
        threading.Thread(target=connect, daemon=True).start()
        try:
            client = result.get(timeout=2 * _CONNECT_SECONDS)
        except Empty:
            client = TimeoutError("something listens there and says nothing")
    if isinstance(client, Exception):
        raise UserError(
            f"No Dask scheduler answers at {address} ({client or type(client).__name__}). Give the address that "
            "`dask scheduler` prints (tcp://192.168.0.1:8786, say), and see that it is reached from here."
        ) from client
    return client


def _release(about: Mapping[str, Any]) -> str:
    """Return the year and month of a release of Dask."""
    return ".".join(str(about["packages"]["distributed"]).split(".")[:2])


# What follows runs on the cluster's workers.


class _Run:
    """What one run of the grader keeps in this process: its desks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = 0
        self._ended = False
        self._timer = threading.Timer(0, self._rest)
        self._desks = Desks()

    @contextmanager
    def desks(self) -> Iterator[Desks]:
        """Yield the desks to grade a job at, in this thread."""
        with self._lock:
            self._timer.cancel()
            self._busy += 1
            if self._ended:
                self._desks.stop()
        try:
            yield self._desks
        finally:
            with self._lock:
                self._busy -= 1
            if self._ended:
                self._rest()
            else:
                self._rest_later()

    def end(self) -> None:
        """Break off what is being graded, and keep nothing."""
        self._ended = True
        self._timer.cancel()
        self._desks.stop()
        self._rest()

    def _rest_later(self) -> None:
        with self._lock:
            self._timer.cancel()
            self._timer = threading.Timer(_IDLE_SECONDS, self._rest)
            self._timer.daemon = True
            self._timer.start()

    def _rest(self) -> None:
        """End the desks' processes and the GPT, unless somebody is at a desk: then that one does it."""
        with self._lock:
            if not self._busy:
                self._desks.close()
                self._desks = Desks()


_runs: dict[str, _Run] = {}
_runs_lock = threading.Lock()


def _run_of(name: str) -> _Run:
    with _runs_lock:
        if name not in _runs:
            _runs[name] = _Run()
        return _runs[name]


def grade_here(run: str, sandboxed: bool, software: Mapping[str, str], job: Job) -> Outcome:
    """Grade a job in this thread, for a run of the grader.

    Raises UserError if this worker is not fit for it; whatever else goes wrong is the outcome's.
    """
    if reason := unfit(sandboxed or job.sandboxed, software, course().unit(job.unit).gpt):
        raise UserError(f"A worker on {platform.node()} {reason}")
    try:
        with _run_of(run).desks() as desks:
            return desks.grade(job)
    except Exception as error:
        what = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return ungraded(job, "error", f"This submission could not be graded on {platform.node()}: {what}")


def unfit(sandboxed: bool, software: Mapping[str, str], gpt: bool) -> str:
    """Say why this worker would not grade as a machine with that software does, and what to do; "" if it does."""
    here = dict(software_here()) | {"kicourse": kicourse.__version__}
    for name, wanted in software.items():
        own = here.get(name, "")
        if name == "source" and own != wanted:
            return "has the same version of kicourse, but other source files. Install it there from the same commit."
        if name == "Python" and own != wanted:
            return f"runs Python {own}, the grading machine {wanted}, so that marks may differ. Start it with that one."
        # A build for another processor is the same release.
        if own.partition("+")[0] != wanted.partition("+")[0]:
            return (
                f"has {name} {own or '(not installed)'}, the grading machine {wanted}, so that marks may differ. "
                f"Install it there (pip install {name}=={wanted.partition('+')[0]}) and start the worker again."
            )
    if sandboxed and (reason := sandbox.unavailable()):
        return (
            f"cannot run submissions safely: {reason}. Take it out of the cluster, or, if you trust everybody whose "
            "work you grade, grade with --no-sandbox."
        )
    if gpt:
        try:
            _require_gpt()
        except UserError as error:
            return f"has no GPT for the submissions to ask. {error}"
    return ""


@cache
def _require_gpt() -> None:
    """Raise UserError without the GPT's files, which are verified: once is enough."""
    weights.folder(GPT)


def end_run(name: str) -> None:
    """End what this process keeps for a run of the grader; what it is still asked to grade for it ends at once."""
    _run_of(name).end()


@atexit.register
def _end_all() -> None:
    for run in list(_runs.values()):
        run.end()
