"""A worker: the judge's fork server and the sandboxed player's, for one unit, one submission at a time."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from kicourse import checks
from kicourse.answers.wire import STAGE, Wire, WireError
from kicourse.grading import folders, ports, processes
from kicourse.grading.assembling import assemble, code_cells
from kicourse.grading.job import Job, Outcome
from kicourse.language import SOURCE
from kicourse.syllabus import Limits, Unit

_START_SECONDS = 120
_WATCH_SECONDS = 0.2
_JUDGE_SLACK = 60.0  # seconds for the judge's own work, in all
_ENVIRONMENT = {
    # After an operation with two threads, forks would hang for good.
    **dict.fromkeys(("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
    "JOBLIB_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "LANG": "C.UTF-8",
}
# Not matplotlib, which takes a second of each start: figures are demonstrations, and those are skipped.
_PRELOAD = ("IPython", "kicourse.plots", "kicourse.models.gpt")


@dataclass
class Progress:
    """What is known of a submission so far, kept on this side so that no death of a process loses it."""

    judged: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)
    current: int = -1
    ended: bool = False


class ForkServer:
    """One of the two: a process of its own that forks on request."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", pid: int, control: socket.socket, stopped: threading.Event
    ) -> None:
        self.process, self.pid, self.control, self.stopped = process, pid, control, stopped
        self.data_bytes = _data_bytes(pid)

    @classmethod
    def of_judges(cls, unit: Unit, scratch: Path, trial_ports: Sequence[int], stopped: threading.Event) -> "ForkServer":
        """Start the judge's, which is trusted."""
        environment = os.environ | _ENVIRONMENT | _folders(scratch)
        environment |= {"KICOURSE_TRIAL_PORTS": ",".join(map(str, trial_ports))}
        control, theirs = socket.socketpair()
        with theirs:
            process = _spawn(_command("judge"), theirs, environment, scratch)
        server = cls(process, process.pid, control, stopped)
        with server._closed_if_it_fails():
            server.import_([*unit.preload, "kicourse.grading.judge", f"kicourse.checks.{unit.slug}"])
        return server

    @classmethod
    def of_players(
        cls, unit: Unit, scratch: Path, sandboxed: bool, environment: Mapping[str, str], stopped: threading.Event
    ) -> "ForkServer":
        """Start the player's, in a sandbox that a warden keeps."""
        request = {
            "command": _command("player"),
            "scratch": str(scratch / "sandbox"),
            "remove": str(scratch),
            "sandboxed": sandboxed,
            "processes": unit.limits.processes,
            "ports": [*ports.reserved(), *ports.of_gpt(environment)],
            "environment": _ENVIRONMENT | dict(environment) | _folders(scratch / "sandbox"),
        }
        (scratch / "sandbox").mkdir(exist_ok=True)
        control, theirs = socket.socketpair()
        line, wardens = socket.socketpair()
        with theirs, wardens:
            command = [sys.executable, "-m", "kicourse.grading.warden", str(wardens.fileno())]
            process = _spawn(command, theirs, dict(os.environ), scratch, pass_fds=(wardens.fileno(),))
        server = cls(process, process.pid, control, stopped)  # the warden's, until there is more
        server.line = line
        with server._closed_if_it_fails():
            server.pid = int(_exchange(line, request, [], _START_SECONDS, stopped)["pid"])
            server.import_([*_PRELOAD, *unit.preload, *unit.player_preload, "sandlock", "kicourse.grading.player"])
        return server

    line: socket.socket | None = None

    @contextmanager
    def _closed_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def fork(self, descriptors: list[socket.socket], folder: Path, limits: Limits, **settings: Any) -> int:
        """Fork, hand these sockets over, and return the fork's process number."""
        request = {
            "folder": str(folder),
            "data_bytes": self.data_bytes + limits.mebibytes * 2**20,
            "file_bytes": limits.disk_mebibytes * 2**20,
            **settings,
        }
        return int(self._ask(request, [one.fileno() for one in descriptors], 30)["pid"])

    def _ask(self, request: dict[str, Any], descriptors: list[int], seconds: float) -> dict[str, Any]:
        return _exchange(self.control, request, descriptors, seconds, self.stopped)

    def import_(self, modules: Sequence[str]) -> None:
        """Import modules once, instead of in each fork."""
        if modules:
            self._ask({"import": list(modules)}, [], _START_SECONDS)
            self.data_bytes = _data_bytes(self.pid)

    def clear(self) -> bool:
        """Kill every fork and whatever it started; return whether nothing is left."""
        return processes.clear(self.pid)

    def close(self) -> None:
        """End the process and everything that came from it."""
        processes.end(self.pid)
        self.control.close()
        if self.line is not None:
            self.line.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            processes.end(self.process.pid)
            self.process.wait()


def _command(role: str) -> list[str]:
    return [sys.executable, "-m", "kicourse.grading.fork_server", role]


def _spawn(
    command: list[str], control: socket.socket, environment: dict[str, str], folder: Path, pass_fds: Sequence[int] = ()
) -> "subprocess.Popen[bytes]":
    """Start a process with the control socket as its standard input, out of reach of Ctrl-C."""
    return subprocess.Popen(
        command,
        stdin=control.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=folder,
        start_new_session=True,
        pass_fds=pass_fds,
    )


def _exchange(
    connection: socket.socket,
    request: dict[str, Any],
    descriptors: list[int],
    seconds: float,
    stopped: threading.Event,
) -> dict[str, Any]:
    """Send a request and return the answer. Raises WorkerLostError if there is none, or grading is stopped."""
    deadline = time.monotonic() + seconds
    try:
        connection.settimeout(_WATCH_SECONDS)
        socket.send_fds(connection, [json.dumps(request).encode()], descriptors)
        while not stopped.is_set() and time.monotonic() < deadline:
            with suppress(TimeoutError):
                return dict(json.loads(connection.recv(4096)))
        raise TimeoutError
    except (OSError, ValueError) as error:
        raise WorkerLostError(f"a process of the grader does not answer ({type(error).__name__})") from error


class WorkerLostError(Exception):
    """A fork server has gone: a new worker is needed."""


class Worker:
    """Grades the submissions of one unit, one at a time. Use it as a context manager.

    `environment` leads the submissions to the embedded GPT, for a unit that has one. Setting `stopped` from another
    thread makes a running `grade` raise WorkerLostError.
    """

    def __init__(self, unit: Unit, sandboxed: bool = True, environment: Mapping[str, str] | None = None) -> None:
        self.unit, self.sandboxed, self.environment = unit, sandboxed, dict(environment or {})
        self.stopped = threading.Event()

    def __enter__(self) -> "Worker":
        """Start nothing yet."""
        self.scratch = Path(tempfile.mkdtemp(prefix="kicourse-grading-")).resolve()
        self._judges: ForkServer | None = None
        self._players: ForkServer | None = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End both, and whatever is left of the submissions."""
        self._end()
        folders.remove(self.scratch)

    def start(self) -> None:
        """Start both fork servers. Raises WorkerLostError if that fails."""
        self._servers()

    def grade(self, job: Job) -> Outcome:
        """Grade one submission. Raises WorkerLostError if that failed through no fault of the submission's."""
        start = time.monotonic()
        progress = Progress()
        deadline = start + job.limits.seconds * 3 + _JUDGE_SLACK
        # A submission whose process is lost is played again, without the cell where that happened.
        for _ in range(1 + len(job.seeds)):
            self._run(job, progress, deadline)
            if progress.ended or time.monotonic() > deadline:
                break
        notebook, tasks = assemble(job, progress.judged, progress.outputs, progress.skipped)
        return Outcome(job.student, job.unit, "graded", tasks, notebook, time.monotonic() - start)

    def _run(self, job: Job, progress: Progress, deadline: float, *, rehearsal: bool = False) -> None:
        """Play the notebook once, until its end or until its process is lost."""
        players, judges = self._servers()
        folder = Path(tempfile.mkdtemp(dir=self.scratch / "sandbox", prefix="submission-"))
        ours, theirs = socket.socketpair()
        judge_end, player_end = socket.socketpair()
        try:
            settings = {"confined": self.sandboxed, "characters": job.limits.characters}
            players.fork([player_end], folder, job.limits, environment=_folders(folder), seed=0, **settings)
            judges.fork([judge_end, theirs], self.scratch, job.limits, environment={}, seed=0)
            for one in (theirs, judge_end, player_end):
                one.close()
            self._follow(job, progress, Wire(ours, 2**26), folder, deadline, rehearsal)
        finally:
            for one in (ours, theirs, judge_end, player_end):
                one.close()
            # Nothing of this submission may live when the next one starts.
            if not (players.clear() and judges.clear()):
                self._end()
            folders.remove(folder)

    def _follow(
        self, job: Job, progress: Progress, reports: Wire, folder: Path, deadline: float, rehearsal: bool
    ) -> None:
        """Take in what the judge reports, and watch what the submission uses meanwhile."""
        # A check's cell only decides, and what was judged stays.
        cells = [cell for cell in code_cells(job) if cell["task"] not in progress.judged]
        request = {
            "unit": job.unit,
            "language": job.language,
            "seeds": job.seeds,
            "seconds": job.limits.seconds,
            "characters": job.limits.characters,
            "references": job.references,
            "given_up": list(progress.given_up),
            "cells": [cell for cell in cells if cell["number"] not in progress.skipped],
            "lost": {cell["name"]: why for cell in cells if (why := progress.skipped.get(cell["number"]))},
            "rehearsal": rehearsal,
        }
        reports.send(STAGE, json.dumps(request).encode())
        why = "it took too long"
        while time.monotonic() < deadline:
            if self.stopped.is_set():
                raise WorkerLostError("grading was stopped")
            try:
                report = json.loads(reports.receive(_WATCH_SECONDS)[1])
            except TimeoutError:
                if why := self._excess(job, folder):
                    break
                why = "it took too long"
                continue
            except WireError:
                self._require_servers()
                why = "its judge ended"
                break
            if self._take(report, progress):
                return
        _lose(job, progress, f"Grading was broken off in this cell: {why}.")

    def _take(self, report: dict[str, Any], progress: Progress) -> bool:
        """Take in one report of the judge's; return whether it was the last."""
        if "start" in report:
            progress.current = report["start"]
        elif "given_up" in report:
            progress.given_up.add(report["given_up"])
        elif "cell" in report:
            progress.outputs[report["cell"]] = report["outputs"]
            if report["verdict"]:
                progress.judged[report["task"]] = report["verdict"]
        elif "lost" in report:
            self._require_servers()
            progress.skipped[report["lost"]] = report["why"]
            return True
        elif "end" in report:
            progress.ended = True
            self._learn(report["modules"], report.get("players_modules", ()))
            return True
        return False

    def _learn(self, judges: Sequence[str], players: Sequence[str]) -> None:
        """Have modules that were imported on the way imported beforehand from now on."""
        for server, modules in ((self._judges, judges), (self._players, players)):
            if server is not None:
                server.import_(modules)

    def _excess(self, job: Job, folder: Path) -> str:
        """Say what the submission uses too much of; the empty string if nothing."""
        memory, threads = processes.used(self._players.pid) if self._players else (0, 0)
        limits = job.limits
        if memory > limits.mebibytes * 2**20:
            return f"it used more than {limits.mebibytes} MiB of memory"
        if threads > limits.threads:
            return f"it used more than {limits.threads} threads"
        size, count = folders.used(folder, limits.files)
        if size > limits.disk_mebibytes * 2**20 or count > limits.files:
            return f"it wrote more than {limits.disk_mebibytes} MiB or {limits.files} files"
        return ""

    def _servers(self) -> tuple[ForkServer, ForkServer]:
        if self._players is None or self._judges is None:
            self._end()
            with ThreadPoolExecutor(1) as beside:
                judges = beside.submit(ForkServer.of_judges, self.unit, self.scratch, ports.reserved(), self.stopped)
                try:
                    self._players = ForkServer.of_players(
                        self.unit, self.scratch, self.sandboxed, self.environment, self.stopped
                    )
                finally:
                    self._judges = judges.result()
            self._rehearse()
        return self._players, self._judges

    def _rehearse(self) -> None:
        """Play the untouched notebook once, to learn what it imports on the way."""
        notebook = self.unit.exercise(SOURCE).read_bytes()
        seeds = dict.fromkeys(checks.load(self.unit.slug), 0)
        job = Job("rehearsal", self.unit.slug, SOURCE, notebook, seeds, self.unit.limits, self.sandboxed)
        self._run(job, Progress(), time.monotonic() + _START_SECONDS, rehearsal=True)

    def _require_servers(self) -> None:
        """Raise WorkerLostError if a fork server has died: then the loss was no fault of the submission's."""
        for server in (self._players, self._judges):
            if server is None or not processes.is_alive(server.pid):
                self._end()
                raise WorkerLostError("a fork server has died")

    def _end(self) -> None:
        for server in (self._players, self._judges):
            if server is not None:
                server.close()
        self._players = self._judges = None


def _lose(job: Job, progress: Progress, why: str) -> None:
    """Note that the process was lost in the current cell; without one, nothing is left to be played."""
    if progress.current < 0:
        progress.ended = True
    progress.skipped[progress.current] = why


def _folders(folder: Path) -> dict[str, str]:
    """The folders that programs write to, all of them private."""
    names = ("HOME", "TMPDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "XDG_CONFIG_HOME")
    return dict.fromkeys(names, str(folder))


def _data_bytes(pid: int) -> int:
    info = psutil.Process(pid).memory_info()
    return int(getattr(info, "data", info.vms))
