"""A class folder that stock nbgrader has graded, to compare with: made once in a run of the tests."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_output
from nbgrader import preprocessors
from nbgrader.api import Base, Gradebook
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import NbGraderPreprocessor
from sqlalchemy import Engine, create_engine, event, select
from traitlets.config import PyFileConfigLoader

from kicourse.grading import class_folder
from kicourse.grading.job import Outcome
from kicourse.grading.report import TaskReport
from tests.grading.notebooks import HALF, SOLVED, code, unit, write
from tests.grading.test_class_folder import SOLUTION, nbgrader, submit

UNIT = "maintenance"
# By the student's answer to "double"; that to "shout" earns 2.5 if there is one.
POINTS = {"isinstance": 7.5, "return 2": 5, "YOUR CODE": 0}
ANSWERS = {
    "ada": SOLVED | {"essay": "Because *x* < y & z.", "sketch": "x = '</pre><b>&lt;é' < 1  # <code>"},
    "bob": {},
    "cy": HALF | {"essay": "It depends."},
}
STAMPS = {"ada": "2026-03-01 10:00:00.5 CET", "cy": "2026-03-09 10:00:00 UTC"}


class Execute(NbGraderPreprocessor):
    """Does in nbgrader's Execute's place what a kernel would do to the toy unit, without the seconds that one takes."""

    def preprocess(self, notebook: Any, resources: Any) -> Any:
        cells = {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells if "nbgrader" in cell.metadata}
        for check, points in earned(cells["double"].source).items():
            data = {"text/plain": f"{points}", "text/html": f"<p>{points} points &amp; a <em>reason</em></p>"}
            cells[check].outputs = [new_output("execute_result", data, execution_count=7)]
        return notebook, resources


def earned(double: str) -> dict[str, float]:
    """The points of the toy unit's check cells, told by the answer to the first."""
    points = next(points for mark, points in POINTS.items() if mark in double)
    return {"double-check": points, "shout-check": 2.5 if points else 0}


@dataclass(frozen=True)
class Stock:
    """A class folder, with the gradebook as it was before and after each of two rounds of `nbgrader autograde`.

    In between, a person gave scores and comments, one student handed in again, and one was given an extension.
    """

    folder: Path
    before: Path
    first: Path
    between: Path
    second: Path
    first_round: dict[str, bytes]
    second_round: dict[str, bytes]


@cache
def stock(base: Path) -> Stock:
    """Let nbgrader grade a class, in a new folder of `base`."""
    place = base / "stock"
    place.mkdir()
    folder = _new_class(place)
    saved = {name: place / f"{name}.db" for name in ("before", "first", "between", "second")}
    for student, answers in ANSWERS.items():
        submit(folder, student, answers)
        if student in STAMPS:
            (folder / "submitted" / student / UNIT / "timestamp.txt").write_text(STAMPS[student])
    shutil.copy(folder / "gradebook.db", saved["before"])
    _autograde(folder)
    shutil.copy(folder / "gradebook.db", saved["first"])
    first_round = _graded(folder)
    _by_hand(folder)
    shutil.copy(folder / "gradebook.db", saved["between"])
    submit(folder, "bob", ANSWERS["ada"])
    _autograde(folder)
    shutil.copy(folder / "gradebook.db", saved["second"])
    nbgrader(folder, "generate_feedback", UNIT)
    return Stock(folder, **saved, first_round=first_round, second_round=_graded(folder))


def _new_class(place: Path) -> Path:
    """A class with the toy unit, to which every kind of cell that a person marks is added."""
    by_hand: dict[str, Any] = {"grade": True, "solution": True, "points": 4}
    essay = new_markdown_cell("Why?", metadata=code("", grade_id="essay", **by_hand).metadata)
    task = code("", grade_id="project", task=True, locked=True, points=3).metadata
    made = unit(
        SOLUTION, essay, code("# sketch", grade_id="sketch", **by_hand), new_markdown_cell("Do.", metadata=task)
    )
    solution = write(place / f"{UNIT}.ipynb", made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kicourse.syllabus.Unit.solution", lambda _unit, _language: solution)
        folder = class_folder.new(place / "class", "en", [UNIT])
    with (folder / "nbgrader_config.py").open("a") as config:  # pages are nbgrader's own
        config.write('c.GenerateFeedback.exporter_class = "nbconvert.exporters.HTMLExporter"\n')
    with Gradebook(url(folder / "gradebook.db"), "class") as gradebook:
        gradebook.update_or_create_assignment(UNIT, duedate="2026-03-08 12:00:00 UTC")
    return folder


def configuration(folder: Path) -> Any:
    """The class's configuration, with a penalty for what is late."""
    config: Any = PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config()
    config.LateSubmissionPlugin.penalty_method = "zero"
    return config


def _autograde(folder: Path) -> None:
    """What `nbgrader autograde --force` does, but for the kernel."""
    config = configuration(folder)
    del config["Autograde"], config.CourseDirectory["ignore"]  # the way to kicourse's judge
    others = ("IgnorePattern", "LimitOutput", "SaveAutoGrades", "AssignLatePenalties", "CheckCellMetadata")
    config.Autograde.autograde_preprocessors = [Execute, *(getattr(preprocessors, name) for name in others)]
    api = NbGraderAPI(coursedir=CourseDirectory(config=config), config=config)
    with unhurried_disk():
        done = api.autograde(UNIT, "*", force=True)
    assert done["success"], done


@contextmanager
def unhurried_disk() -> Iterator[None]:
    """Let SQLite not wait for the disk: nbgrader commits a dozen times a submission, and a busy disk takes seconds."""

    def relax(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", relax)
    try:
        yield
    finally:
        event.remove(Engine, "connect", relax)


def _by_hand(folder: Path) -> None:
    """What happens in the formgrader between two runs."""
    with Gradebook(url(folder / "gradebook.db"), "class") as gradebook:
        for cell, student, score, extra in (("essay", "ada", 3, None), ("shout-check", "ada", 2, 0.5)):
            grade = gradebook.find_grade(cell, UNIT, UNIT, student)
            grade.manual_score, grade.extra_credit, grade.needs_manual_grade = score, extra, False
        gradebook.find_grade("project", UNIT, UNIT, "bob").needs_manual_grade = False
        gradebook.find_comment("essay", UNIT, UNIT, "ada").manual_comment = "Nice & *short*."
        gradebook.find_comment("project", UNIT, UNIT, "ada").manual_comment = "<b>Bold</b> work."
        gradebook.db.commit()
        gradebook.grant_extension(UNIT, "cy", days=2)


def _graded(folder: Path) -> dict[str, bytes]:
    return {student: (folder / "autograded" / student / UNIT / f"{UNIT}.ipynb").read_bytes() for student in ANSWERS}


def url(gradebook: Path) -> str:
    return f"sqlite:///{gradebook}"


def outcome(student: str, notebook: bytes, double: float = 0, shout: float = 0, **others: Any) -> Outcome:
    """How a submission of the toy unit went, with points for its two tasks."""
    tasks = (TaskReport("double", double, 7.5, "passed"), TaskReport("shout", shout, 2.5, "passed"))
    return Outcome(student, UNIT, **({"status": "graded", "tasks": tasks, "notebook": notebook} | others))


def released(folder: Path, answers: dict[str, str]) -> bytes:
    """The released notebook with some cells filled in."""
    notebook = nbformat.read(folder / "release" / UNIT / f"{UNIT}.ipynb", 4)
    for cell in notebook.cells:
        cell.source = answers.get(cell.metadata.get("nbgrader", {}).get("grade_id"), cell.source)
    text: str = nbformat.writes(notebook)
    return text.encode()


def dump(gradebook: Path) -> dict[str, list[dict[str, Any]]]:
    """Every table of a gradebook, with the rows that the random ids point to in the place of the ids."""
    engine = create_engine(url(gradebook))
    meaning: dict[str, str] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
    with engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            rows = [dict(row) for row in connection.execute(select(table)).mappings()]
            tables[table.name] = sorted((_explained(row, table.name, meaning) for row in rows), key=str)
    engine.dispose()
    return tables


def _explained(row: dict[str, Any], table: str, meaning: dict[str, str]) -> dict[str, Any]:
    identity = row.get("id", "")
    if len(identity) != 32 or identity in meaning:  # a name, or a row that adds to another table's
        return {name: meaning.get(str(value), value) for name, value in row.items()}
    explained = {name: meaning.get(str(value), value) for name, value in row.items() if name != "id"}
    meaning[identity] = f"{table}{explained}"
    return explained
