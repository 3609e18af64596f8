"""A worker: the judge's server and the sandboxed player's, for one unit, one submission at a time."""

import json
import random
import shutil
import socket
import tempfile
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from kicourse import checks
from kicourse.answers.wire import STAGE, Wire, WireError
from kicourse.errors import UserError
from kicourse.grading import folders, ports, processes
from kicourse.grading.assembling import assemble, code_cells
from kicourse.grading.job import Job, Outcome
from kicourse.grading.servers import START_SECONDS, WATCH_SECONDS, ForkServer, Server, WorkerLostError, folders_of
from kicourse.grading.spawning import Spawner
from kicourse.grading.usage import MOST_MAPPINGS
from kicourse.language import SOURCE, _, translate
from kicourse.syllabus import Limits, Unit

_MOST_LOST = 20  # cells of the learner's own
_MOST_JUDGES = 3  # that may be ended before something must be wrong with this machine
_JUDGE_SLACK = 60.0  # seconds for the judge's own work, in all
_LOOKS, _BETWEEN_LOOKS = 3, 0.01
_UNASKED = 0.2  # the share of looks for which all are held though nothing was seen
_MOST_DESCRIPTORS = 2_000  # of all processes: what waits in a connection is the kernel's memory, 0.2 MiB for each
_BOUNDS = {"descriptors": _MOST_DESCRIPTORS, "mappings": MOST_MAPPINGS}  # which no class can set


@dataclass
class Progress:
    """What is known of a submission so far, kept on this side so that no death of a process loses it."""

    judged: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    ended_once: set[int] = field(default_factory=set)
    given_up: set[str] = field(default_factory=set)
    late: set[str] = field(default_factory=set)
    current: int = -1
    lost_judges: int = 0
    ended: bool = False

    def give_up(self, task: str) -> None:
        """Note that the reference solution of a task was taken: what is judged of it this time does not count."""
        if task not in self.given_up:
            self.given_up.add(task)
            self.late.add(task)
            self.judged.pop(task, None)

    def lose(self, cell: int, why: str, *, ended: bool) -> None:
        """Note that a process was lost in a cell, which is left out from now on.

        One that has `ended` may have been killed by somebody else: then the cell gets a second try. After that nothing
        is left to be played without a cell, before the first one.
        """
        if ended and cell not in self.ended_once:
            self.ended_once.add(cell)
            return
        self.skipped[cell] = why
        self.ended = cell < 0


class Worker:
    """Grades the submissions of one unit, one at a time. Use it as a context manager.

    `environment` leads the submissions to the embedded GPT, for a unit that has one. Setting `stopped` from another
    thread makes a running `grade` raise WorkerLostError. With a `core`, the next submissions and their judges run on
    that one only: they take turns, and to wake each other on another core takes longer than many a request.
    """

    def __init__(self, unit: Unit, sandboxed: bool = True, environment: Mapping[str, str] | None = None) -> None:
        self.unit, self.sandboxed, self.environment = unit, sandboxed, dict(environment or {})
        self.stopped = threading.Event()
        self.core: int | None = None

    def __enter__(self) -> "Worker":
        """Start nothing yet."""
        self.scratch = Path(tempfile.mkdtemp(prefix="kicourse-grading-")).resolve()
        (self.scratch / "sandbox").mkdir()
        self._judges: Server | None = None
        self._players: Server | None = None
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
        progress = Progress(given_up=set(job.given_up))
        # Enough for each task to use up a cell's time: who is caught in one loop after the other still gets the others.
        deadline = start + job.limits.seconds * (1 + len(job.seeds)) + _JUDGE_SLACK
        # A submission whose process is lost is played again, at last without the cell where that happened.
        for _again in range(2 * (_MOST_LOST + len(job.seeds))):
            self._run(job, progress, deadline)
            if progress.ended or time.monotonic() > deadline:
                break
        notebook, tasks = assemble(job, progress.judged, progress.outputs, progress.skipped)
        seconds, given_up = time.monotonic() - start, tuple(sorted(progress.given_up))
        return Outcome(job.student, job.unit, "graded", tasks, notebook, seconds, given_up=given_up)

    def _run(self, job: Job, progress: Progress, deadline: float, *, rehearsal: bool = False) -> None:
        """Play the notebook once, until its end or until its process is lost."""
        players, judges = self._servers()
        if self.core is not None:
            players.keep_to(self.core)
            judges.keep_to(self.core)
        progress.current, progress.late = -1, set()
        folder = Path(tempfile.mkdtemp(dir=self.scratch / "sandbox", prefix="submission-"))
        ours, theirs = socket.socketpair()
        judge_end, player_end = socket.socketpair()
        try:
            settings = {"confined": self.sandboxed, "characters": job.limits.characters}
            seed = zlib.crc32(job.notebook)  # for numbers of one's own, and the same ones the next time
            players.fork([player_end], folder, job.limits, environment=folders_of(folder), seed=seed, **settings)
            judges.fork([judge_end, theirs], self.scratch, job.limits, environment={}, seed=seed)
            players.await_fork()
            judges.await_fork()
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
        why = _("it took too long")
        looked, pause, free = time.monotonic(), WATCH_SECONDS, _free(folder)
        while time.monotonic() < deadline:
            if self.stopped.is_set():
                raise WorkerLostError("grading was stopped")
            try:
                if self._take(json.loads(reports.receive(pause)[1]), progress):
                    return
            except TimeoutError:
                pass
            except WireError as error:
                # A judge is ours, whoever ended it: that is no mark.
                self._require_servers()
                progress.lost_judges += 1
                if progress.lost_judges >= _MOST_JUDGES:
                    raise WorkerLostError("its judges were ended, one after the other") from error
                return
            # By the clock: a submission may have much to report.
            if time.monotonic() - looked >= pause:
                if excess := self._excess(job.limits, folder, free):
                    why = excess
                    break
                looked, pause = time.monotonic(), random.uniform(0.5, 1.5) * WATCH_SECONDS  # nobody knows when
        broken_off = translate("kicourse", _("Grading was broken off in this cell: {why}."), job.language)
        why = translate("kicourse", why, job.language).format(**asdict(job.limits), **_BOUNDS)
        progress.lose(progress.current, broken_off.format(why=why), ended=False)

    def _take(self, report: dict[str, Any], progress: Progress) -> bool:
        """Take in one report of the judge's; return whether it was the last."""
        if "cell" in report:
            progress.outputs[report["cell"]] = report["outputs"]
            if report["verdict"] and report["task"] not in progress.late:
                progress.judged[report["task"]] = report["verdict"]
        if "start" in report:
            progress.current = report["start"]
        elif "given_up" in report:
            progress.give_up(report["given_up"])
        elif "lost" in report:
            self._require_servers()
            progress.lose(report["lost"], report["why"], ended=report["ended"])
            return True
        elif "end" in report:
            progress.ended = not progress.late
            self._learn(report["modules"], report.get("players_modules", ()))
            return True
        return False

    def _learn(self, judges: Sequence[str], players: Sequence[str]) -> None:
        """Have modules that were imported on the way imported beforehand from now on."""
        for server, modules in ((self._judges, judges), (self._players, players)):
            if server is not None:
                server.import_(modules)

    def _excess(self, limits: Limits, folder: Path, free: int) -> str:
        """Say what the submission uses too much of, as a sentence of the catalogue whose values are limits.

        It is empty if nothing is too much. `free` is what the disk had before.

        What moves can be seen wrongly: too much of one that is just being started, nothing of one that is never there
        where somebody looks. So a look decides while all stand still, or, where nobody can be held, several do. Now and
        then all stand still without a reason: whoever knows how to look harmless does not know when.
        """
        players = self._players
        if players is None:
            return ""
        excess, certain = _seen(players, limits, folder, free)
        if certain and not excess and random.random() > _UNASKED:
            return ""
        with players.held() as held:
            if held:
                return _seen(players, limits, folder, free)[0]
        for _again in range(_LOOKS - 1):
            if not excess:
                break
            time.sleep(_BETWEEN_LOOKS)
            excess, _ = _seen(players, limits, folder, free)
        return excess

    def _servers(self) -> tuple[Server, Server]:
        if self._players is None or self._judges is None:
            self._end()
            if not processes.can_fork():
                if self.sandboxed:
                    raise UserError("Without forks there is no sandbox: grade on Linux, or with --no-sandbox.")
                self._players = Spawner.of_players(self.unit, self.environment, self.stopped)
                self._judges = Spawner.of_judges(self.unit, self.stopped)
                return self._players, self._judges
            with ThreadPoolExecutor(1) as beside:
                # Before the judge: where there is but one core left, what takes longer goes first.
                processes.IMPORTS.acquire()
                judges = beside.submit(self._start_judges, ports.reserved())
                try:
                    self._players = ForkServer.of_players(
                        self.unit, self.scratch, self.sandboxed, self.environment, self.stopped
                    )
                finally:
                    processes.IMPORTS.release()
                    self._judges = judges.result()
            self._rehearse()
        return self._players, self._judges

    def _start_judges(self, trial_ports: Sequence[int]) -> ForkServer:
        with processes.IMPORTS:
            return ForkServer.of_judges(self.unit, self.scratch, trial_ports, self.stopped)

    def _rehearse(self) -> None:
        """Play the untouched notebook once, to learn what it imports on the way."""
        notebook = self.unit.exercise(SOURCE).read_bytes()
        seeds = dict.fromkeys(checks.load(self.unit.slug), 0)
        job = Job("rehearsal", self.unit.slug, SOURCE, notebook, seeds, self.unit.limits, self.sandboxed)
        self._run(job, Progress(), time.monotonic() + START_SECONDS, rehearsal=True)

    def _require_servers(self) -> None:
        """Raise WorkerLostError if a fork server has died: then the loss was no fault of the submission's."""
        for server in (self._players, self._judges):
            if server is None or not server.is_alive():
                self._end()
                raise WorkerLostError("a server of processes has died")

    def _end(self) -> None:
        for server in (self._players, self._judges):
            if server is not None:
                server.close()
        self._players = self._judges = None


def _free(folder: Path) -> int:
    """Return how many bytes a disk has left."""
    return shutil.disk_usage(folder).free


def _seen(players: Server, limits: Limits, folder: Path, free: int) -> tuple[str, bool]:
    """Look once: return what is too much, if anything, and whether nothing has moved meanwhile."""
    used, (size, count, certain) = players.used(), folders.used(folder, limits.files)
    memory, disk = limits.mebibytes * 2**20, limits.disk_mebibytes * 2**20
    # Where somebody writes much and nothing is seen of it, it may be in files without a name.
    unlinked = players.unlinked() if size <= disk < free - _free(folder) else 0
    excess = ""
    if used.processes > limits.processes:
        excess = _("it had more than {processes} processes")
    elif used.memory > memory and players.exact_memory() > memory:
        excess = _("it used more than {mebibytes} MiB of memory")
    elif used.threads > limits.threads:
        excess = _("it used more than {threads} threads")
    elif used.descriptors > _MOST_DESCRIPTORS:
        excess = _("it had more than {descriptors} files and connections open")
    elif used.mappings >= MOST_MAPPINGS:
        excess = _("it had more than {mappings} pieces of memory mapped")
    elif size + unlinked > disk or count > limits.files:
        excess = _("it wrote more than {disk_mebibytes} MiB or {files} files")
    return excess, used.certain and certain
