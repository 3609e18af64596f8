"""Feedback pages: the HTML that `nbgrader generate_feedback` makes of a graded notebook, many in one go."""

import re
import secrets
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import TracebackType
from typing import Any, Self

import nbformat
from bs4 import BeautifulSoup
from nbconvert.filters.highlight import Highlight2HTML
from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbformat import NotebookNode
from nbformat.v4 import new_notebook
from nbgrader import utils
from nbgrader.api import Assignment, BaseCell, Comment, Grade, Notebook, SubmittedAssignment, SubmittedNotebook
from nbgrader.converters import GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import GetGrades
from sqlalchemy import Connection, select
from traitlets.config import Config

from kicourse.errors import UserError
from kicourse.grading.gradebook import database_errors, open_gradebook

KEPT = 1_000  # cells whose highlighted code is kept for the next page


class FeedbackWriter:
    """Turns graded notebooks into nbgrader's feedback pages, with the marks and comments in the gradebook.

    The page of a notebook is what `nbgrader generate_feedback` makes of it, and `config`, the class's nbgrader
    configuration, has the same say. What is slow is done once: template, style sheets, the connection.
    """

    def __init__(self, db_url: str, config: Any = None, busy_seconds: float = 30) -> None:
        self._engine = open_gradebook(db_url, busy_seconds)
        self._config = config or Config()

    def __enter__(self) -> Self:
        # The first page takes a second more than the others: better now, while the first worker starts.
        self._render(new_notebook(), "", "", _Marks({}, {}, None))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.dispose()

    def page(self, student: str, unit: str, notebook: bytes) -> str:
        """Return the feedback page of a graded notebook, whose marks must be in the gradebook already."""
        with database_errors(self._engine.url), self._engine.connect() as connection:
            marks = _read_marks(connection, student, unit)
        return self._render(nbformat.reads(notebook.decode(), as_version=4), student, unit, marks)

    def _render(self, graded: NotebookNode, student: str, unit: str, marks: "_Marks") -> str:
        folder = self._course.format_path(self._course.autograded_directory, student, unit)
        resources = {
            "unique_key": unit,
            "output_files_dir": f"{unit}_files",
            "nbgrader": {"student": student, "assignment": unit, "notebook": unit, "marks": marks},
            "metadata": {"name": unit, "path": folder},
        }
        exporter, code = self._exporter, self._code
        code.start(graded)
        page, _ = exporter.from_notebook_node(graded, resources=resources)
        exporter._nb_metadata.clear()  # it keeps the metadata of every notebook it has seen
        return code.put_into(page)

    @cached_property
    def _course(self) -> Any:
        return CourseDirectory(config=self._config)

    @cached_property
    def _exporter(self) -> Any:
        """The exporter that nbgrader's own converter would use, with quicker ones of its preprocessors."""
        converter = GenerateFeedback(coursedir=self._course, config=self._config)
        exporter = converter.exporter_class(parent=converter, config=converter.config)
        quicker = {GetGrades: _MarksOnCells, CSSHTMLHeaderPreprocessor: _StylesOnce}
        for preprocessor in converter.preprocessors:
            exporter.register_preprocessor(quicker.get(preprocessor, preprocessor))
        return exporter

    @cached_property
    def _code(self) -> "_CodeOnce":
        code = _CodeOnce(self._exporter)
        self._exporter.filters = {"highlight_code": code, **self._exporter.filters}  # a class's own goes first
        return code


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


class _MarksOnCells(GetGrades):  # type: ignore[misc]
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
        raise UserError(f"The gradebook does not know the cell '{name}'. Grade the submission again.")
    if answered or task:
        cell.metadata.nbgrader["comment"] = marks.comments[name]
    if graded or task:
        cell.metadata.nbgrader["score"], cell.metadata.nbgrader["points"] = marks.scores[name]


class _StylesOnce(CSSHTMLHeaderPreprocessor):
    """CSSHTMLHeaderPreprocessor, which makes the same style sheet anew for each notebook."""

    _inlining: Any = None

    def preprocess(self, notebook: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        if self._inlining is None:
            super().preprocess(notebook, resources)  # type: ignore[no-untyped-call]
            self._inlining = resources["inlining"]
        resources["inlining"] = self._inlining
        return notebook, resources


class _CodeOnce:
    """Highlighting that keeps for the next student what it made of the cells that all have.

    The exporter has every page parsed and written anew, and code is most of a page's tags. So for the time of that,
    something short stands in the place of highlighted code: Pygments closes what it opens, so what it makes can be
    parsed and written by itself, once.
    """

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self._tag = f"code-{secrets.token_hex(8)}"  # nothing that a learner writes can be taken for it
        self._lexer: str | None = None
        self._pieces: list[str] = []
        self._made = lru_cache(maxsize=KEPT)(self._make)

    def start(self, notebook: NotebookNode) -> None:
        """Get ready for the code of a notebook, in its language."""
        language = notebook.metadata.get("language_info", {})
        self._lexer = language.get("pygments_lexer", language.get("name"))
        self._pieces = []

    def __call__(self, source: str, language: str | None = None, metadata: Any = None) -> str:
        """The template's filter `highlight_code`; returns what stands in the place of the code."""
        piece, end = self._made(self._lexer, source, language, (metadata or {}).get("magics_language"))
        self._pieces.append(piece)
        return f'<{self._tag} n="{len(self._pieces) - 1}"></{self._tag}>{end}'

    def _make(self, lexer: str | None, source: str, language: str | None, magics: str | None) -> tuple[str, str]:
        """Highlighted code as the exporter would write it, and the space behind it."""
        highlight = Highlight2HTML(pygments_lexer=lexer, parent=self._exporter)  # type: ignore[no-untyped-call]
        made: str = highlight(source, language, {"magics_language": magics} if magics else {})
        piece = made.rstrip()
        return str(BeautifulSoup(piece, features="html.parser")), made[len(piece) :]

    def put_into(self, page: str) -> str:
        """Return the page with the code in its place."""
        mark = rf'<{self._tag} n="(\d+)"></{self._tag}>'
        return re.sub(mark, lambda found: self._pieces[int(found[1])], page)
