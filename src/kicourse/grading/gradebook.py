"""Writing marks into nbgrader's gradebook: the rows that `nbgrader autograde` would write, in one transaction each."""

import json
import math
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from alembic.script import ScriptDirectory
from nbformat import NotebookNode, from_dict
from nbgrader import dbutil, utils
from nbgrader.api import (
    Assignment,
    Base,
    BaseCell,
    Comment,
    Course,
    Grade,
    GradeCell,
    Notebook,
    SourceCell,
    Student,
    SubmittedAssignment,
    SubmittedNotebook,
    TaskCell,
)
from nbgrader.preprocessors import AssignLatePenalties
from sqlalchemy import Connection, Engine, bindparam, create_engine, func, insert, inspect, select, text, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from kicourse.errors import UserError
from kicourse.grading.job import Outcome
from kicourse.grading.open_class import without_password

NO_RESPONSE = "No response."  # nbgrader's own words
STOCK_COURSE = "default_course"  # nbgrader's preprocessors add it beside the class's own

_OUTDATED = (
    "The gradebook {url} is not one of the installed nbgrader ({why}). Back it up, then run `nbgrader db upgrade --db"
    " {quoted}` and `nbgrader db assignment list --db {quoted}` in the class folder: the one changes old tables, the"
    " other adds new ones."
)
_FROM_ELSEWHERE = (
    "The gradebook {url} is of a revision that the installed nbgrader does not know ({why}). It was probably made with"
    " a newer one: install that."
)
_MISSING = (
    "There is no gradebook at {url}. If that is the right place, make it: run `nbgrader generate_assignment UNIT"
    " --force --db {quoted}` in the class folder, for each unit."
)
_FAILED = (
    "The gradebook {url} cannot be used: {reason}. What was there is intact; mend that and grade again, and what has"
    " not been written will be."
)
_UNKNOWN = (
    "The gradebook does not know the unit '{unit}'. Run `nbgrader generate_assignment {unit} --force` first (with --db"
    " URL, if the gradebook is another one than the class's)."
)
_DISAGREE = (
    "The release of '{unit}' and its gradebook disagree about {what}. Run `nbgrader generate_assignment --force"
    " {unit}`, and grade again."
)

# What one submission's grades become. Whether a person has to look is decided in the database, beside the manual score
# that it depends on: the formgrader may be writing one at this moment.
_ONE_GRADE = (
    update(Grade.__table__)
    .where(Grade.__table__.c.notebook_id == bindparam("of_notebook"), Grade.__table__.c.cell_id == bindparam("of_cell"))
    .values(auto_score=bindparam("score"))
)
_SCORED = _ONE_GRADE.values(needs_manual_grade=Grade.__table__.c.manual_score.is_not(None))
_TO_REVIEW = _ONE_GRADE.values(needs_manual_grade=True)
_ONE_COMMENT = (
    update(Comment.__table__)
    .where(
        Comment.__table__.c.notebook_id == bindparam("of_notebook"),
        Comment.__table__.c.cell_id == bindparam("of_cell"),
    )
    .values(auto_comment=bindparam("comment"))
)


class GradebookWriter:
    """Writes outcomes into a gradebook, as `nbgrader autograde` would have done.

    `config` is the class's nbgrader configuration, for its way with late submissions. Raises UserError for a gradebook
    that does not exist, or that `nbgrader db upgrade` has to bring up to date first.
    """

    def __init__(self, db_url: str, course_id: str, config: Any = None, busy_seconds: float = 30) -> None:
        self._engine = open_gradebook(db_url, busy_seconds)
        self._course_id = course_id
        self._penalties = AssignLatePenalties(config=config)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.dispose()

    def write(self, outcome: Outcome, timestamp: datetime | None) -> None:
        """Write one submission's marks: all of them or, with a UserError, none.

        Manual scores and comments stay, and a cell that has a manual score is marked for review. Without a timestamp,
        the one that is known stays.
        """
        with database_errors(self._engine.url), self._engine.begin() as connection:
            unit = _read_unit(connection, outcome.unit)
            unanswered = _unanswered(outcome, unit)
            scores, comments = _auto_scores(outcome, unit, unanswered), _auto_comments(unit, unanswered)
            _add_missing(connection, Course, {self._course_id, STOCK_COURSE} - {""}, "id")
            _add_missing(connection, Student, {outcome.student}, "id")
            submission = _submission(connection, unit, outcome.student, utils.parse_utc(timestamp))
            notebook = _mirror(connection, unit, submission.id)
            _write_scores(connection, notebook, scores)
            _execute(connection, _ONE_COMMENT, notebook, "comment", comments)
            self._write_penalty(connection, outcome.student, notebook, unit.seconds_late(submission))

    def marks(self, student: str, unit: str) -> dict[str, float | None]:
        """Return what the checks gave a student for a unit, by cell; empty where the gradebook has nothing of it."""
        submitted, book, grade, cell = (
            table.__table__ for table in (SubmittedAssignment, SubmittedNotebook, Grade, BaseCell)
        )
        found = (
            select(cell.c.name, grade.c.auto_score)
            .select_from(
                submitted.join(Assignment.__table__, Assignment.__table__.c.id == submitted.c.assignment_id)
                .join(book, book.c.assignment_id == submitted.c.id)
                .join(grade, grade.c.notebook_id == book.c.id)
                .join(cell, cell.c.id == grade.c.cell_id)
            )
            .where(Assignment.__table__.c.name == unit, submitted.c.student_id == student)
            .order_by(cell.c.name)
        )
        with database_errors(self._engine.url), self._engine.connect() as connection:
            return {row.name: row.auto_score for row in connection.execute(found)}

    def marked_by_hand(self, units: Sequence[str], students: Sequence[str] = ()) -> int:
        """Return how many submissions for these units, of these students or all, have a mark that a person gave."""
        submitted, book, grade, unit = (
            table.__table__ for table in (SubmittedAssignment, SubmittedNotebook, Grade, Assignment)
        )
        found = (
            select(func.count(submitted.c.id.distinct()))
            .select_from(
                submitted.join(unit, unit.c.id == submitted.c.assignment_id)
                .join(book, book.c.assignment_id == submitted.c.id)
                .join(grade, grade.c.notebook_id == book.c.id)
            )
            .where(unit.c.name.in_(units), grade.c.manual_score.is_not(None) | (grade.c.extra_credit != 0))
        )
        if students:
            found = found.where(submitted.c.student_id.in_(students))
        with database_errors(self._engine.url), self._engine.connect() as connection:
            return int(connection.execute(found).scalar_one())

    def _write_penalty(self, connection: Connection, student: str, notebook: str, seconds_late: float) -> None:
        """What nbgrader's AssignLatePenalties does."""
        penalty = None
        if seconds_late > 0:
            total = select(func.coalesce(func.sum(Grade.score), 0.0)).where(Grade.notebook_id == notebook)
            score = connection.execute(total).scalar_one()
            self._penalties.init_plugin()
            penalty = self._penalties.plugin_inst.late_submission_penalty(student, score, seconds_late)
            penalty = penalty if penalty is None else min(max(penalty, 0), score)
        table = SubmittedNotebook.__table__
        connection.execute(update(table).where(table.c.id == notebook).values(late_submission_penalty=penalty))


def open_gradebook(db_url: str, busy_seconds: float = 30) -> Engine:
    """Connect to an existing, up-to-date gradebook; another program that is writing is waited for."""
    _require_quoted(db_url)
    with database_errors(db_url):
        url = make_url(db_url)
    with database_errors(url):
        sqlite = url.get_backend_name() == "sqlite"
        # SQLite would make an empty one.
        if sqlite and "uri" not in url.query and not Path(url.database or "").is_file():
            raise UserError(_to_run(_MISSING, url))
        engine = create_engine(url, connect_args={"timeout": busy_seconds} if sqlite else {})
        try:
            _require_current(engine)
        except BaseException:
            engine.dispose()
            raise
        return engine


def _require_quoted(db_url: str) -> None:
    """Raise UserError for signs in a password that end it too early; the rest would show in what a database says."""
    kind, _, rest = db_url.partition("://")
    if not kind.startswith("sqlite") and rest.partition("?")[0].count("@") > 1:
        raise UserError(
            "The address of the gradebook has more than one @. Of a password in it, write @ as %40, : as %3A, / as %2F,"
            " % as %25."
        )


@contextmanager
def database_errors(url: URL | str) -> Iterator[None]:
    """Turn what a database complains about into a UserError with the reason."""
    try:
        yield
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        if isinstance(error, ImportError) and error.name:
            how = ": pip install 'psycopg[binary]'" if error.name == "psycopg" else ""
            reason = [f"its driver, the module {error.name}, is not installed{how}"]
        shown = _shown(url) if isinstance(url, URL) else "at this address"  # never the password
        raise UserError(_FAILED.format(url=shown, reason=reason[0])) from error


def _shown(url: URL) -> str:
    """Return an address as it may be shown, from whatever folder it is used."""
    if url.get_backend_name() == "sqlite" and "uri" not in url.query and url.database:
        return f"sqlite:///{os.path.abspath(url.database)}"  # as people write it, without signs for signs
    return without_password(url.render_as_string())


def _to_run(advice: str, url: URL, **values: str) -> str:
    """Return advice with commands in it that need the address of a gradebook."""
    shown = _shown(url)
    hidden = " (*** stands for the password.)" if "***" in shown and "{quoted}" in advice else ""
    return advice.format(url=shown, quoted=shlex.quote(shown), **values) + hidden


def _require_current(engine: Engine) -> None:
    tables = set(inspect(engine).get_table_names())
    if not tables:
        raise UserError(_to_run(_MISSING, engine.url))
    if absent := sorted({*Base.metadata.tables, "alembic_version"} - tables):
        raise UserError(_to_run(_OUTDATED, engine.url, why=f"it lacks the table {absent[0]}"))
    # What nbgrader.api.get_alembic_version() says, which starts a process to find it out.
    known = ScriptDirectory(dbutil.ALEMBIC_DIR)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    if found != [known.get_current_head()]:
        newer = not {*found} <= {script.revision for script in known.walk_revisions()}
        advice = _FROM_ELSEWHERE if newer else _OUTDATED
        raise UserError(_to_run(advice, engine.url, why=f"its revision is {', '.join(found) or 'none'}"))


@dataclass(frozen=True)
class _Cell:
    """A cell that the gradebook knows: what is graded by check or person, or answered, or both, or a manual task."""

    id: str
    name: str
    type: str
    max_score: float | None
    language: str | None
    notebook: str

    @property
    def is_graded(self) -> bool:
        return self.type in ("GradeCell", "TaskCell")

    @property
    def is_commented(self) -> bool:
        return self.type in ("SolutionCell", "TaskCell")


@dataclass(frozen=True)
class _Unit:
    """An assignment as the gradebook knows it. `cells` are those of all its notebooks, `own` those of the unit's."""

    id: str
    name: str
    duedate: datetime | None
    notebooks: Mapping[str, str]
    cells: tuple[_Cell, ...]
    checksums: Mapping[str, str]

    @property
    def own(self) -> list[_Cell]:
        return [cell for cell in self.cells if cell.notebook == self.notebooks[self.name]]

    def seconds_late(self, submission: Any) -> float:
        """How long after the due date and the student's extension something was handed in."""
        if submission.timestamp is None or self.duedate is None:
            return 0
        due = self.duedate + (submission.extension or timedelta())
        seconds: float = (submission.timestamp - due).total_seconds()
        return max(0.0, seconds)


def _read_unit(connection: Connection, name: str) -> _Unit:
    table, books = Assignment.__table__, Notebook.__table__
    assignment = connection.execute(select(table.c.id, table.c.duedate).where(table.c.name == name)).first()
    if assignment is None:
        raise UserError(_UNKNOWN.format(unit=name))
    known = select(books.c.name, books.c.id).where(books.c.assignment_id == assignment.id)
    notebooks: dict[str, str] = {row.name: row.id for row in connection.execute(known)}
    if name not in notebooks:
        raise UserError(_UNKNOWN.format(unit=name))
    cell, grade, task = BaseCell.__table__, GradeCell.__table__, TaskCell.__table__
    cells = (
        select(
            cell.c.id,
            cell.c.name,
            cell.c.type,
            func.coalesce(grade.c.max_score, task.c.max_score),
            grade.c.cell_type,
            cell.c.notebook_id,
        )
        .select_from(cell.outerjoin(grade, grade.c.id == cell.c.id).outerjoin(task, task.c.id == cell.c.id))
        .where(cell.c.notebook_id.in_(notebooks.values()))
    )
    source = SourceCell.__table__
    checksums = select(source.c.name, source.c.checksum).where(source.c.notebook_id == notebooks[name])
    return _Unit(
        assignment.id,
        name,
        assignment.duedate,
        notebooks,
        tuple(_Cell(*row) for row in connection.execute(cells)),
        {row.name: row.checksum for row in connection.execute(checksums)},
    )


def _auto_scores(outcome: Outcome, unit: _Unit, unanswered: set[str]) -> dict[str, float | None]:
    """The score of each graded cell, by the cell's id; None where a person has to give it."""
    graded = [cell for cell in unit.own if cell.is_graded]
    if outcome.status != "graded":
        return {cell.id: 0.0 for cell in graded}
    points = {f"{task.task}-check": task.points for task in outcome.tasks}
    if unknown := points.keys() - {cell.name for cell in graded}:
        raise UserError(_DISAGREE.format(unit=unit.name, what=f"the cell '{min(unknown)}'"))
    solutions = {cell.name for cell in unit.own if cell.type == "SolutionCell"}
    scores: dict[str, float | None] = {}
    for cell in graded:
        if cell.name in points:
            scores[cell.id] = _within(points[cell.name], cell, unit)
        elif cell.name in solutions:
            scores[cell.id] = 0.0 if cell.name in unanswered else None
        elif cell.type == "GradeCell" and cell.language == "code":
            # Zero would be a mark that nobody gave.
            raise UserError(_DISAGREE.format(unit=unit.name, what=f"the cell '{cell.name}', which no check decides"))
        elif cell.type == "GradeCell":
            scores[cell.id] = None
        # A manual task is a person's alone: nbgrader leaves its grade as it is.
    return scores


def _within(points: float, cell: _Cell, unit: _Unit) -> float:
    """Points that the gradebook can hold; sums of shares may be off by a rounding error."""
    largest = cell.max_score or 0.0
    if not (math.isfinite(points) and 0 <= points <= largest + 1e-9):
        raise UserError(_DISAGREE.format(unit=unit.name, what=f"the points of '{cell.name}': {points} of {largest}"))
    return min(float(points), largest)


def _auto_comments(unit: _Unit, unanswered: set[str]) -> dict[str, str | None]:
    """The comment on each answer, by the cell's id. One on an earlier submission does not outlive it."""
    answers = [cell for cell in unit.own if cell.is_commented]
    return {
        cell.id: NO_RESPONSE if cell.type == "SolutionCell" and cell.name in unanswered else None for cell in answers
    }


def _unanswered(outcome: Outcome, unit: _Unit) -> set[str]:
    """The cells that are as they were released, by nbgrader's checksums; all if what was handed in cannot be read."""
    if outcome.status == "unreadable":
        return set(unit.checksums)
    if outcome.status == "error":
        return set()
    cells = {cell.metadata.nbgrader["grade_id"]: cell for cell in _nbgrader_cells(outcome.notebook)}
    return {name for name, cell in cells.items() if unit.checksums.get(name) == utils.compute_checksum(cell)}


def _nbgrader_cells(notebook: bytes) -> Iterator[NotebookNode]:
    """The cells that nbgrader has a name for, without the outputs: those are most of a notebook, and of no use here."""
    for cell in json.loads(notebook)["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id"):
            source = "".join(cell["source"])  # a string, or a list of lines
            yield from_dict({"cell_type": cell["cell_type"], "metadata": cell["metadata"], "source": source})


def _add_missing(connection: Connection, model: Any, wanted: Iterable[str], key: str, **others: str) -> None:
    """Insert a row for each wanted value of a column that has none among the rows with these other values."""
    table = model.__table__
    wanted = list(wanted)
    same = [table.c[name] == value for name, value in others.items()]
    present = set(connection.execute(select(table.c[key]).where(table.c[key].in_(wanted), *same)).scalars())
    if rows := [{key: value, **others} for value in wanted if value not in present]:
        connection.execute(insert(table), rows)


def _submission(connection: Connection, unit: _Unit, student: str, timestamp: datetime | None) -> Any:
    """The row of a student's submission, made if need be, as far as it matters here."""
    table = SubmittedAssignment.__table__
    of_student = (table.c.assignment_id == unit.id, table.c.student_id == student)
    _add_missing(connection, SubmittedAssignment, {student}, "student_id", assignment_id=unit.id)
    if timestamp is not None:
        connection.execute(update(table).where(*of_student).values(timestamp=timestamp))
    return connection.execute(select(table.c.id, table.c.timestamp, table.c.extension).where(*of_student)).one()


def _mirror(connection: Connection, unit: _Unit, submission: str) -> str:
    """Give the submission a row for each notebook and cell of its unit; return the id of the unit's own notebook.

    An assignment to which cells were added since a student handed in is completed too.
    """
    _add_missing(connection, SubmittedNotebook, unit.notebooks.values(), "notebook_id", assignment_id=submission)
    table = SubmittedNotebook.__table__
    # Naming the notebooks too lets the database use its index.
    found = select(table.c.notebook_id, table.c.id).where(
        table.c.notebook_id.in_(unit.notebooks.values()), table.c.assignment_id == submission
    )
    submitted: dict[str, str] = {row.notebook_id: row.id for row in connection.execute(found)}
    for original, copy in submitted.items():
        cells = [cell for cell in unit.cells if cell.notebook == original]
        _add_missing(connection, Grade, [cell.id for cell in cells if cell.is_graded], "cell_id", notebook_id=copy)
        _add_missing(connection, Comment, [cell.id for cell in cells if cell.is_commented], "cell_id", notebook_id=copy)
    return submitted[unit.notebooks[unit.name]]


def _write_scores(connection: Connection, notebook: str, scores: Mapping[str, float | None]) -> None:
    scored = {cell: score for cell, score in scores.items() if score is not None}
    open_ones = {cell: None for cell, score in scores.items() if score is None}
    _execute(connection, _SCORED, notebook, "score", scored)
    _execute(connection, _TO_REVIEW, notebook, "score", open_ones)


def _execute(connection: Connection, statement: Any, notebook: str, name: str, values: Mapping[str, object]) -> None:
    """Run an update once for each cell."""
    if values:
        rows = [{"of_notebook": notebook, "of_cell": cell, name: value} for cell, value in values.items()]
        connection.execute(statement, rows)
