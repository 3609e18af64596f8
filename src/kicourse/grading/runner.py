"""Running notebooks headless: what `kicourse check` does."""

from collections.abc import Sequence
from pathlib import Path

import nbformat
from rich.console import Console

from kicourse import checks
from kicourse.errors import UsageError, UserError
from kicourse.grading import sandbox
from kicourse.grading.job import Job, Outcome
from kicourse.grading.opening import OpenNotebook, open_notebook
from kicourse.grading.pool import LocalPool
from kicourse.grading.rebuild import rebuilt_json
from kicourse.grading.report import NotebookReport, as_json, as_junit, show
from kicourse.grading.submitted import UnreadableSubmissionError
from kicourse.models import weights
from kicourse.models.embedded import GPT
from kicourse.result_files import require_place, writing

AT_ONCE = 2
_SEED = 0


def check_notebooks(paths: Sequence[Path], json: Path | None = None, junit: Path | None = None) -> int:
    """Run notebooks, print how every task went, and return the exit status: 0 only if all have full marks.

    They are judged as in a class: rebuilt from the course's own notebook, demonstrations skipped, in a sandbox where
    there can be one. Errors do not stop a notebook, and neither the files nor the learner's progress are changed. A
    file that is no notebook of the course is reported, and the others run all the same. Raises UsageError for a path
    that is no file, and for a report that could not be written.
    """
    _require_files(paths)
    for target in (json, junit):
        require_place(target)
    console = Console()
    with console.status(f"Running {len(paths)} notebook{'s' * (len(paths) > 1)} ..."):
        reports = run(paths)
    if not console.is_terminal:
        console.width = 160
    show(reports, console)
    for target, written_as in ((json, as_json), (junit, as_junit)):
        if target is not None:
            with writing(target):
                target.write_text(written_as(reports), encoding="utf-8")
    return 0 if all(report.has_full_marks for report in reports) else 1


def run(paths: Sequence[Path]) -> list[NotebookReport]:
    """Run notebooks, several at once, and return how each went, in their order."""
    opened = [_open(path) for path in paths]
    jobs = {str(number): _job(str(number), one) for number, one in enumerate(opened)}
    if any(isinstance(one, OpenNotebook) and one.unit.gpt for one in opened):
        weights.folder(GPT)  # raises UserError now, and not when the first notebook needs it
    # By unit, so that a worker seldom has to start anew.
    waiting = sorted((job for job in jobs.values() if isinstance(job, Job)), key=lambda job: job.unit)
    with LocalPool(AT_ONCE, expected=len(waiting)) as pool:
        outcomes = {outcome.student: outcome for outcome in pool.run(iter(waiting))}
    return [_report(str(path), jobs[name], outcomes.get(name)) for name, path in zip(jobs, paths, strict=True)]


def _require_files(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir():
            raise UsageError(f"{path} is a folder. Name notebooks: kicourse check {path / '*.ipynb'}")
        if not path.exists():
            raise UsageError(f"There is no file {path}. Name the notebooks to run.")


def _open(path: Path) -> OpenNotebook | UsageError:
    try:
        return open_notebook(path)
    except UsageError as error:
        return error


def _job(name: str, notebook: OpenNotebook | UsageError) -> Job | UserError:
    """Return the job of a notebook, or what keeps it from being one."""
    if isinstance(notebook, UsageError):
        return notebook
    unit = notebook.unit
    release = nbformat.read(unit.exercise(notebook.language), as_version=4)
    try:
        rebuilt = rebuilt_json(release, notebook.path.read_bytes())
    except UnreadableSubmissionError as error:
        return error
    return Job(
        student=name,
        unit=unit.slug,
        language=notebook.language,
        notebook=rebuilt,
        seeds=dict.fromkeys(checks.load(unit.slug), _SEED),
        limits=unit.limits,
        sandboxed=not sandbox.unavailable(),
    )


def _report(name: str, job: Job | UserError, outcome: Outcome | None) -> NotebookReport:
    if outcome is None or isinstance(job, UserError):
        return NotebookReport(name, "", error=str(job))
    error = outcome.message if outcome.status == "error" else ""
    return NotebookReport(name, outcome.unit, () if error else outcome.tasks, error, outcome.seconds)
