"""Where nbgrader's own commands, and the formgrader's button, meet the judge.

nbgrader's Autograde reads a submission twice: from `submitted/`, to clean it, and from `autograded/`, to run it. Both
go through its exporter. This one rebuilds the notebook the first time, and has it judged the second time; then
nbgrader's own preprocessors read the marks, as ever.
"""

import glob
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from nbconvert.exporters import NotebookExporter
from nbgrader.converters import Autograde
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory

from kicourse.errors import UserError
from kicourse.grading.clerk import Clerk
from kicourse.grading.grade import AUTOGRADED, Settings, alone, keep, known_outcome, prepare, standing
from kicourse.grading.open_class import LONGEST_TIMESTAMP, OpenClass, Submission, open_class
from kicourse.grading.placing import safe_name
from kicourse.grading.store import Store


class JudgedNotebook(NotebookExporter):
    """Rebuilds a submission, has it judged, and gives nbgrader the graded notebook."""

    _clerk: Clerk | None = None

    def from_filename(self, filename: str, resources: Any = None, **kwargs: Any) -> Any:
        """Return the notebook of a submission: rebuilt if `filename` lies in submitted/, graded if in autograded/."""
        about = resources["nbgrader"]
        opened = open_class(Path(self.parent.coursedir.root))
        submission = opened.submission(about["student"], about["assignment"])
        node = self._node(opened, submission, judged="autograded" in Path(filename).parts)
        return self.from_notebook_node(node, resources=resources, **kwargs)

    def _node(self, opened: OpenClass, submission: Submission, judged: bool) -> Any:
        import nbformat

        settings = Settings(sandboxed=os.environ.get("KICOURSE_SANDBOX") != "off")
        prepared = prepare(opened, submission, settings)
        job = prepared.job
        if not judged:
            return nbformat.reads(job.notebook.decode(), as_version=4)
        store, key = Store(opened.place), prepared.key
        outcome = known_outcome(store, prepared)
        if outcome is None:
            outcome = self._judge().grade(job)
            if outcome.status == "error":
                raise RuntimeError(outcome.message)
            key = keep(store, prepared, outcome)
        # nbgrader writes the marks now, and no page of feedback.
        store.note_written(job.student, job.unit, standing(opened, submission, key), AUTOGRADED)
        _keep_timestamp(opened, submission)
        return nbformat.reads(outcome.notebook.decode(), as_version=4)

    def _judge(self) -> Clerk:
        if self._clerk is None:
            self._clerk = Clerk()
        return self._clerk


def _keep_timestamp(opened: OpenClass, submission: Submission) -> None:
    """Note beside the graded notebook when it was handed in: nbgrader grades anew what is newer than that."""
    path = opened.root / "autograded" / submission.student / submission.unit / "timestamp.txt"
    path.unlink(missing_ok=True)
    if submission.timestamp:
        path.write_text(submission.timestamp, encoding="utf-8")


def prepare_nbgrader() -> None:
    """Let nbgrader's commands in this process grade what `kicourse grade` does, alone, and read timestamps safely."""
    _wrap(Autograde, "start", _start_alone)
    _wrap(Autograde, "init_notebooks", _find_submissions)
    _read_timestamps_safely()


def _start_alone(start: Callable[[Autograde], None], autograde: Autograde) -> None:
    """Keep every other grader out of the class, and say so if there is one at work."""
    if not issubclass(autograde.exporter_class, JudgedNotebook):
        return start(autograde)
    try:
        with alone(open_class(Path(autograde.coursedir.root))):
            return start(autograde)
    except UserError as error:
        autograde.log.error(str(error))
        raise NbGraderException(str(error)) from error


def _find_submissions(find: Callable[[Autograde], None], autograde: Autograde) -> None:
    """Take every folder for a submission, as `kicourse grade` does: one without the notebook gets a mark too."""
    unit = autograde.coursedir.assignment_id
    found = [Path(path) for path in glob.glob(autograde._format_source(unit, autograde.coursedir.student_id))]
    if not found or not issubclass(autograde.exporter_class, JudgedNotebook):
        return find(autograde)
    folders = [path for path in found if safe_name(path.parent.name) and not path.parent.is_symlink()]
    autograde.notebooks = []
    autograde.assignments = {str(folder): [str(folder / f"{unit}.ipynb")] for folder in folders}
    return None


def _read_timestamps_safely() -> None:
    """Let nbgrader read no timestamp.txt but a small plain file: a pipe, or a million digits, would hold up a class.

    One that names no time would end its commands, and empty the formgrader's pages.
    """
    from nbgrader.apps.api import NbGraderAPI

    def read(original: Callable[..., Any], place: str, *arguments: Any) -> Any:
        path = Path(place) / "timestamp.txt"
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LONGEST_TIMESTAMP:
            return None
        try:
            return original(*arguments)
        except Exception:  # whatever somebody wrote into it
            return None

    def submitted(original: Callable[..., Any], api: NbGraderAPI, unit: str, student: str) -> Any:
        place = api.coursedir.format_path(api.coursedir.submitted_directory, student, unit)
        return read(original, place, api, unit, student)

    _wrap(CourseDirectory, "get_existing_timestamp", lambda original, *about: read(original, about[-1], *about))
    _wrap(NbGraderAPI, "get_submitted_timestamp", submitted)


def _wrap(kind: type, name: str, around: Callable[..., Any]) -> None:
    """Let `around` be called instead of a method, with the method as its first argument."""
    method = getattr(kind, name)
    if not hasattr(method, "__wrapped__"):  # it was not done before
        setattr(kind, name, wraps(method)(lambda *arguments: around(method, *arguments)))
