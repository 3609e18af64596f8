"""Where nbgrader's own commands, and the formgrader's button, meet the judge.

nbgrader's Autograde reads a submission twice: from `submitted/`, to clean it, and from `autograded/`, to run it. Both
go through its exporter. This one rebuilds the notebook the first time, and has it judged the second time; then
nbgrader's own preprocessors read the marks, as ever.
"""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from nbconvert.exporters import NotebookExporter
from nbgrader.coursedir import CourseDirectory

from kicourse.grading.clerk import Clerk
from kicourse.grading.grade import Settings, keep, known_outcome, prepare
from kicourse.grading.open_class import LONGEST_TIMESTAMP, OpenClass, Submission, open_class
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
            self._warn_of_another(opened)
            return nbformat.reads(job.notebook.decode(), as_version=4)
        store = Store(opened.place)
        outcome = known_outcome(store, prepared)
        if outcome is None:
            outcome = self._judge().grade(job)
            if outcome.status == "error":
                raise RuntimeError(outcome.message)
            keep(store, prepared, outcome)
        store.forget_written(job.student, job.unit)  # feedback is not written here
        _keep_timestamp(opened, submission)
        return nbformat.reads(outcome.notebook.decode(), as_version=4)

    def _warn_of_another(self, opened: OpenClass) -> None:
        try:
            with FileLock(opened.lock, timeout=0):
                pass
        except Timeout:
            self.log.warning("`kicourse grade` is at work in this folder too. Let one of them finish first.")
        except OSError:  # a folder that nobody may write to: nobody else does
            pass

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


def read_timestamps_safely() -> None:
    """Let nbgrader read no timestamp.txt but a small plain file: a pipe, or a million digits, would hold up a class.

    One that names no time would end its commands, and empty the formgrader's pages.
    """
    from nbgrader.apps.api import NbGraderAPI

    _guard(CourseDirectory, "get_existing_timestamp", lambda _course, folder: folder)
    _guard(
        NbGraderAPI,
        "get_submitted_timestamp",
        lambda api, unit, student: api.coursedir.format_path(api.coursedir.submitted_directory, student, unit),
    )


def _guard(kind: Any, name: str, folder_of: Callable[..., str]) -> None:
    original = getattr(kind, name)
    if hasattr(original, "__wrapped__"):  # it is guarded already
        return

    @wraps(original)
    def read(self: Any, *arguments: Any) -> Any:
        path = Path(folder_of(self, *arguments)) / "timestamp.txt"
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LONGEST_TIMESTAMP:
            return None
        try:
            return original(self, *arguments)
        except Exception:  # whatever somebody wrote into it
            return None

    setattr(kind, name, read)
