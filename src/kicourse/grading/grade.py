"""What `kicourse grade` does: read what was handed in, have it graded, and write it down in one place."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from kicourse import checks
from kicourse.errors import UserError
from kicourse.grading import processes, sandbox
from kicourse.grading.assembling import ungraded
from kicourse.grading.job import Job, Outcome
from kicourse.grading.open_class import PLACE, OpenClass, Release, Submission, moment_of, open_class
from kicourse.grading.pool import LocalPool, Pool
from kicourse.grading.rebuild import rebuilt_json
from kicourse.grading.results import Results
from kicourse.grading.seeds import seed_for
from kicourse.grading.store import Store, key_of
from kicourse.grading.submitted import UnreadableSubmissionError
from kicourse.grading.summary import Progress, show
from kicourse.grading.writing_process import WritingProcess
from kicourse.models import weights
from kicourse.models.embedded import GPT
from kicourse.result_files import require_place, writing
from kicourse.syllabus import course

AUTOGRADED = "by nbgrader"
"""What is noted of a submission whose marks `nbgrader autograde` writes."""


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    units: Sequence[str] = ()
    students: Sequence[str] = ()
    workers: int = 0
    scheduler: str | None = None
    force: bool = False
    sandboxed: bool = True
    db_url: str | None = None
    json: Path | None = None


def grade(folder: Path, settings: Settings) -> int:
    """Grade a class folder and return the exit status: 0 if every submission got a mark.

    Raises UserError for everything that keeps it from starting; then nothing was changed.
    """
    opened = open_class(folder, settings.db_url)
    if settings.sandboxed and settings.scheduler is None:
        sandbox.require()
    opened.chosen(settings.units)
    opened.require_students(settings.students)
    require_place(settings.json)
    console = Console()
    with Results(keeps_all=settings.json is not None) as results:
        with alone(opened), ExitStack() as stack:
            pool = stack.enter_context(_pool(opened, settings))
            writer = stack.enter_context(WritingProcess(opened.root, opened.db_url))
            progress = stack.enter_context(Progress(_count(opened, settings), console))
            run = _Run(opened, settings, writer, progress, results)
            try:
                for outcome in pool.run(run.jobs()):
                    run.take(outcome)
            except KeyboardInterrupt:
                progress.stop()
                console.print("Stopped. What is graded is kept; the same command does the others.")
                raise
            results.marked_by_hand = writer.marked_by_hand(
                [release.unit for release in opened.chosen(settings.units)], settings.students
            )
        show(opened, results, settings, console)
        if settings.json is not None:
            with writing(settings.json):
                results.write_json(settings.json)
            console.print(f"Written: {settings.json}", markup=False, soft_wrap=True)
    is_complete = settings.units or not opened.has_ungraded(settings.students)
    return 0 if is_complete and all(line.status != "error" for line in results.lines) else 1


class _Run:
    """One run of the grader: which submissions need grading, and what becomes of the outcomes."""

    def __init__(
        self, opened: OpenClass, settings: Settings, writer: WritingProcess, progress: Progress, results: Results
    ) -> None:
        self.opened, self.settings, self.writer = opened, settings, writer
        self.progress, self.results = progress, results
        self.store = Store(opened.place)
        self._under_way: dict[tuple[str, str], tuple[Prepared, Submission]] = {}

    def jobs(self) -> Iterator[Job]:
        """Yield what must be graded; what is known already, or cannot be read, is written at once."""
        self.writer.require_gradebook()  # before anything is graded that could not be written
        for submission in self.opened.submissions(self.settings.units, self.settings.students):
            prepared = prepare(self.opened, submission, self.settings)
            place = submission.student, submission.unit
            earlier = known_outcome(None if self.settings.force else self.store, prepared)
            if earlier is not None and not self.settings.force and self._stands(submission, prepared, earlier):
                self.results.add(earlier, skipped=True)
                self.progress.skip()
                continue
            self._under_way[place] = prepared, submission.without_content()
            if earlier is None:
                yield prepared.job
                self.writer.prepare(submission.unit)  # while the job is under way
            else:
                self.take(earlier)

    def _stands(self, submission: Submission, prepared: "Prepared", outcome: Outcome) -> bool:
        """Whether the outcome is what stands in gradebook and folders; what nbgrader wrote gets its page now."""
        place = submission.student, submission.unit
        key = standing(self.opened, submission, prepared.key)
        if self.store.is_written(*place, key, self.writer.written(*place)):
            return True
        if not self.store.is_written(*place, key, AUTOGRADED) or not self.writer.has_marks(outcome):
            return False
        self.store.note_written(*place, key, self.writer.write(outcome, submission.timestamp, page_only=True))
        return True

    def take(self, outcome: Outcome) -> None:
        """Keep an outcome and write it where it belongs.

        One that failed is no mark: what stands there from an earlier time stays, and the next run tries again.
        """
        place = outcome.student, outcome.unit
        prepared, submission = self._under_way.pop(place)
        key = keep(self.store, prepared, outcome)
        if outcome.status != "error":
            written = self.writer.write(outcome, submission.timestamp)
            self.store.note_written(*place, standing(self.opened, submission, key), written)
        self.results.add(outcome)
        self.progress.advance()


def standing(opened: OpenClass, submission: Submission, key: str) -> str:
    """Return what an outcome comes to in a class: its key, the gradebook that has it, and the time of handing in."""
    address = opened.db_url.replace(str(opened.root), "")  # a class folder may move
    gradebook = hashlib.sha256(address.encode()).hexdigest()[:16]
    return f"{key} {gradebook} {moment_of(submission.timestamp) or ''}".strip()


def _count(opened: OpenClass, settings: Settings) -> int:
    students = settings.students or opened.students()
    folder = opened.root / "submitted"
    return sum(
        os.path.lexists(folder / student / release.unit)
        for release in opened.chosen(settings.units)
        for student in students
    )


@dataclass(frozen=True)
class Prepared:
    """A submission ready to be graded, and the release it is of; with a reason if it cannot be read."""

    job: Job
    release: bytes
    unreadable: str

    @property
    def key(self) -> str:
        """The key of its outcome."""
        return key_of(self.job, self.release + self.unreadable.encode())


def prepare(opened: OpenClass, submission: Submission, settings: Settings) -> Prepared:
    """Rebuild a submission and derive its seeds. One that cannot be read gets the release as its notebook."""
    release = opened.releases[submission.unit]
    reason, notebook = submission.unreadable, release.content
    if not reason:
        try:
            notebook = rebuilt_json(release.node, submission.content)
        except UnreadableSubmissionError as error:
            reason = error.told(opened.language)
    job = Job(
        student=submission.student,
        unit=release.unit,
        language=opened.language,
        notebook=notebook,
        seeds={
            task: seed_for(opened.secret, release.unit, task, submission.student, notebook)
            for task in checks.load(release.unit)
        },
        limits=release.limits,
        sandboxed=settings.sandboxed,
        references=os.environ.get("KICOURSE_REFERENCE") == "on",
        given_up=Store(opened.place).given_up(submission.student, release.unit),
    )
    return Prepared(job, release.content, reason)


def known_outcome(store: Store | None, prepared: Prepared) -> Outcome | None:
    """Return the outcome of a submission that need not be run: it cannot be read, or was graded before."""
    if prepared.unreadable:
        return ungraded(prepared.job, "unreadable", prepared.unreadable)
    return store.find(prepared.key) if store else None


def keep(store: Store, prepared: Prepared, outcome: Outcome) -> str:
    """Keep an outcome, unless grading failed, and return its key: that of the next time, given what was given up."""
    if outcome.status != "error":
        store.note_given_up(outcome.student, outcome.unit, outcome.given_up)
        prepared = replace(prepared, job=replace(prepared.job, given_up=outcome.given_up))
        store.keep(prepared.key, outcome)
    return prepared.key


@contextmanager
def alone(opened: OpenClass) -> Iterator[None]:
    """Keep a second grader out of the class. Raises UserError if there is one at work, or nothing can be written."""
    from filelock import FileLock, Timeout

    lock = FileLock(opened.lock)
    try:
        lock.acquire(timeout=1)
    except Timeout as error:
        raise UserError(f"{opened.root} is being graded now, by another command. Wait until it is done.") from error
    except OSError as error:
        raise UserError(
            f"{opened.root / PLACE} cannot be written ({error.strerror}). Make the folder writable."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _pool(opened: OpenClass, settings: Settings) -> Iterator[Pool]:
    """Yield where the jobs are graded."""
    gpt = any(course().unit(release.unit).gpt for release in opened.chosen(settings.units))
    if settings.scheduler is not None:
        from kicourse.grading.cluster import ClusterPool

        with ClusterPool(settings.scheduler, settings.sandboxed, gpt) as cluster:
            yield cluster
        return
    if gpt:
        weights.folder(GPT)  # raises UserError now, and not when the first submission needs it
    # Who asks for so many workers gets them; otherwise, no more start than the class is worth.
    expected = None if settings.workers else _count(opened, settings)
    with LocalPool(settings.workers or len(processes.cores()) or os.cpu_count() or 1, expected=expected) as pool:
        if release := _first_release(opened, settings):
            pool.prepare(release.unit, release.limits, settings.sandboxed)
        yield pool


def _first_release(opened: OpenClass, settings: Settings) -> Release | None:
    """Return the first unit with a submission that surely needs grading: a worker can start before it is rebuilt."""
    store = Store(opened.place)
    for release in opened.chosen(settings.units):
        for student in settings.students or opened.students():
            if settings.force or not store.knows(student, release.unit):
                content = opened.submission(student, release.unit).content
                if content.lstrip().startswith(b"{"):
                    return release
    return None
