"""Feedback pages: the HTML that `nbgrader generate_feedback` makes of a graded notebook, many in one go."""

from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import nbformat
from nbconvert.exporters import HTMLExporter
from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbformat import NotebookNode
from nbformat.v4 import reads_json
from nbgrader import utils
from nbgrader.api import Assignment, BaseCell, Comment, Grade, Notebook, SubmittedAssignment, SubmittedNotebook
from nbgrader.converters import GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import GetGrades
from sqlalchemy import Connection, select
from traitlets.config import Config

from kicourse.errors import UserError
from kicourse.grading.gradebook import database_errors, open_gradebook
from kicourse.grading.pages import Pages, StylesOnce


class FeedbackWriter:
    """Turns graded notebooks into nbgrader's feedback pages, with the marks and comments in the gradebook.

    The page of a notebook is what `nbgrader generate_feedback` makes of it, and `config`, the class's nbgrader
    configuration, has the same say. What is slow is done once: template, style sheets, the connection.
    """

    def __init__(self, db_url: str, config: Any = None, busy_seconds: float = 30) -> None:
        self._engine = open_gradebook(db_url, busy_seconds)
        self._config = config or Config()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.dispose()

    def prepare(self, release: NotebookNode) -> None:
        """Render what all students have, while there is nothing else to do: the first page takes a second more."""
        cells = [cell | {"metadata": {}} for cell in release.cells]  # the gradebook has no marks for a release's cells
        plain = nbformat.from_dict(release | {"cells": cells})
        self._render(plain, "", "", _Marks({}, {}, None))

    def page(self, student: str, unit: str, notebook: bytes) -> str:
        """Return the feedback page of a graded notebook, whose marks must be in the gradebook already."""
        with database_errors(self._engine.url), self._engine.connect() as connection:
            marks = _read_marks(connection, student, unit)
        # Not validated here: the exporter does that.
        return self._render(_Disposable(reads_json(notebook.decode())), student, unit, marks)

    def _render(self, graded: NotebookNode, student: str, unit: str, marks: "_Marks") -> str:
        folder = self._course.format_path(self._course.autograded_directory, student, unit)
        resources = {
            "unique_key": unit,
            "output_files_dir": f"{unit}_files",
            "nbgrader": {"student": student, "assignment": unit, "notebook": unit, "marks": marks},
            "metadata": {"name": unit, "path": folder},
        }
        page, _ = self._exporter.from_notebook_node(graded, resources=resources)
        self._exporter._nb_metadata.clear()  # it keeps the metadata of every notebook it has seen
        return str(page)

    @cached_property
    def _course(self) -> Any:
        return CourseDirectory(config=self._config)

    @cached_property
    def _exporter(self) -> Any:
        """The exporter that nbgrader's own converter would use, and its preprocessors, or quicker ones of them."""
        converter = GenerateFeedback(coursedir=self._course, config=self._config)
        chosen = converter.exporter_class
        exporter = (Pages if chosen is HTMLExporter else chosen)(parent=converter, config=converter.config)
        quicker = {GetGrades: _MarksOnCells, CSSHTMLHeaderPreprocessor: StylesOnce}
        exporter.optimistic_validation = True  # once, and not after each preprocessor
        for preprocessor in converter.preprocessors:
            exporter.register_preprocessor(quicker.get(preprocessor, preprocessor))
        return exporter


class _Disposable(NotebookNode):
    """A notebook that nobody needs afterwards: what works on it need not work on a copy of a copy of a copy."""

    def __deepcopy__(self, memo: Any) -> Self:
        return self


@dataclass(frozen=True)
class _Marks:
    """What the gradebook says about one submitted notebook; scores as (score, points), by the cells' names."""

    scores: dict[str, tuple[float, float]]
    comments: dict[str, str | None]
    penalty: float | None


def _read_marks(connection: Connection, student: str, unit: str) -> _Marks:
    found = connection.execute(
        select(SubmittedNotebook.id, SubmittedNotebook.notebook_id, SubmittedNotebook.late_submission_penalty)
        .join(SubmittedAssignment, SubmittedAssignment.id == SubmittedNotebook.assignment_id)
        .join(Assignment, Assignment.id == SubmittedAssignment.assignment_id)
        .join(Notebook, Notebook.id == SubmittedNotebook.notebook_id)
        .where(Assignment.name == unit, Notebook.name == unit, SubmittedAssignment.student_id == student)
    ).first()
    if found is None:
        raise UserError(f"The gradebook has no marks of '{student}' for '{unit}'. Grade the submission first.")
    cells = BaseCell.__table__
    known = select(cells.c.id, cells.c.name).where(cells.c.notebook_id == found.notebook_id)
    names: dict[str, str] = {row.id: row.name for row in connection.execute(known)}
    # Naming the cells too lets the database use its indexes.
    scores = select(Grade.cell_id, Grade.score, Grade.max_score).where(
        Grade.cell_id.in_(names), Grade.notebook_id == found.id
    )
    comments = select(Comment.cell_id, Comment.comment).where(
        Comment.cell_id.in_(names), Comment.notebook_id == found.id
    )
    return _Marks(
        {names[row[0]]: (row[1], row[2]) for row in connection.execute(scores)},
        {names[row[0]]: row[1] for row in connection.execute(comments)},
        found.late_submission_penalty,
    )


class _MarksOnCells(GetGrades):
    """GetGrades, with all marks at hand instead of a search in the gradebook for each cell."""

    def preprocess(self, notebook: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        about = resources["nbgrader"]
        marks: _Marks = about["marks"]
        for cell in notebook.cells:
            _mark(cell, marks)
        penalty = marks.penalty or 0
        about["score"] = sum(score for score, _ in marks.scores.values()) - penalty
        about["max_score"] = sum(points for _, points in marks.scores.values())
        about["late_penalty"] = penalty
        return notebook, resources


def _mark(cell: NotebookNode, marks: _Marks) -> None:
    """Put a cell's score and comment into its metadata, where the template looks for them."""
    graded, task = utils.is_grade(cell), utils.is_task(cell)
    answered = utils.is_solution(cell)
    if not (graded or task or answered):
        return
    name = cell.metadata.nbgrader["grade_id"]
    if ((graded or task) and name not in marks.scores) or ((answered or task) and name not in marks.comments):
        raise UserError(
            f"The gradebook does not know the cell '{name}' of this release. Run `nbgrader generate_assignment --force"
            " UNIT`, and grade again."
        )
    if answered or task:
        cell.metadata.nbgrader["comment"] = marks.comments[name]
    if graded or task:
        cell.metadata.nbgrader["score"], cell.metadata.nbgrader["points"] = marks.scores[name]
