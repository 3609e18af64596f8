"""A class with what its students handed in, and what becomes of it: for trying `kicourse grade` as instructors do."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from nbgrader.api import (
    BaseCell,
    Comment,
    Grade,
    Gradebook,
    SubmittedAssignment,
    SubmittedNotebook,
)

from kicourse.grading import class_folder
from kicourse.syllabus import course

BIN = Path(sys.executable).parent
UNIT = "first_call"
POINTS = {"ask": 2.0, "cost": 2.5, "stream": 2.5, "conversation": 3.0}
NOTHING = dict.fromkeys(POINTS, 0.0)
DEADLINE = 540  # seconds for a run, however busy the machine is

Sources = Mapping[str, str]


@cache
def solved() -> dict[str, str]:
    """The source of each task in the course's own solution."""
    cells = nbformat.read(course().unit(UNIT).solution("en"), 4).cells
    named = {cell.metadata.get("nbgrader", {}).get("grade_id"): cell.source for cell in cells}
    return {task: named[task] for task in POINTS}


def half() -> dict[str, str]:
    """Two of the four tasks, for 5 points: those whose checks take no time."""
    return {task: solved()[task] for task in ("cost", "stream")}


def wrong() -> dict[str, str]:
    """A cost that is none: reads and writes are charged at the same price."""
    return {
        "cost": "def cost(usage, prices):\n"
        "    return Decimal(usage.prompt_tokens + usage.completion_tokens) * prices['input'] / 1_000_000"
    }


_pristine: list[Path] = []


def new_class(places: pytest.TempPathFactory, folder: Path) -> Path:
    """Make a class with one unit; nbgrader's part in that takes seconds, so it is done once."""
    if not _pristine:
        _pristine.append(class_folder.new(places.mktemp("class-room") / "class", "en", [UNIT]))
    return Path(shutil.copytree(_pristine[0], folder))


def hand_in(
    folder: Path, student: str, answers: Sources | None = None, own: Sequence[tuple[str, str]] = (), unit: str = UNIT
) -> Path:
    """Hand in the exercise with these tasks filled in; `own` are a learner's cells, each behind the cell it names."""
    notebook = nbformat.read(course().unit(UNIT).exercise("en"), 4)
    cells = []
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = (answers or {}).get(name, cell.source)
        cells += [cell, *(new_code_cell(source) for place, source in own if place == name)]
    notebook.cells = cells
    path = folder / "submitted" / student / unit / f"{unit}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def command(folder: Path, *arguments: str) -> list[str]:
    return [str(BIN / "kicourse"), "grade", str(folder), *arguments]


def environment(**more: str) -> dict[str, str]:
    """The environment of somebody who has only what comes along."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")} | more


def grade(folder: Path, *arguments: str, status: int = 0, **more: str) -> str:
    """Run `kicourse grade` and return what it said; keywords go into its environment."""
    done = subprocess.run(
        command(folder, *arguments),
        env=environment(**more),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    said = done.stdout + done.stderr
    assert done.returncode == status, f"exit status {done.returncode}, not {status}: {said}"
    assert "Traceback" not in said, said
    return said


def grade_for_json(folder: Path, *arguments: str, status: int = 0, **more: str) -> dict[str, dict[str, Any]]:
    """Run `kicourse grade --json` and return what it wrote, by student."""
    path = folder.parent / f"{folder.name}.json"
    path.unlink(missing_ok=True)
    grade(folder, *arguments, "--json", str(path), status=status, **more)
    return {one["student"]: one for one in json.loads(path.read_text(encoding="utf-8"))}


def gradebook_of(folder: Path) -> Gradebook:
    """Open a class's gradebook with nbgrader's API, as a context manager."""
    return Gradebook(f"sqlite:///{folder / 'gradebook.db'}", "class")


def marks(folder: Path) -> dict[str, dict[str, float]]:
    """What nbgrader says that each student has got for each task."""
    with gradebook_of(folder) as gradebook:
        return {
            submission.student.id: {
                grade.name.removesuffix("-check"): grade.score for grade in submission.notebooks[0].grades
            }
            for submission in gradebook.assignment_submissions(UNIT)
        }


def totals(folder: Path) -> dict[str, float]:
    """What nbgrader says that each student has got in all."""
    with gradebook_of(folder) as gradebook:
        return {one.student.id: one.score for one in gradebook.assignment_submissions(UNIT)}


def require_single_rows(folder: Path) -> None:
    """Fail if a submission, a grade or a comment is in the gradebook twice, or belongs to nothing, or is missing."""
    with gradebook_of(folder) as gradebook:
        session = gradebook.db
        submissions = session.query(SubmittedAssignment).all()
        twice = Counter((one.student_id, one.assignment_id) for one in submissions)
        notebooks = Counter(one.assignment_id for one in session.query(SubmittedNotebook))
        grades = Counter((one.notebook_id, one.cell_id) for one in session.query(Grade))
        comments = Counter((one.notebook_id, one.cell_id) for one in session.query(Comment))
        for rows in (twice, notebooks, grades, comments):
            assert set(rows.values()) <= {1}, rows.most_common(3)
        assert len(notebooks) == len(submissions)
        assert len(grades) == len(submissions) * len(POINTS)
        orphans = {one.cell_id for one in session.query(Grade)} - {one.id for one in session.query(BaseCell)}
        assert not orphans


def graded(folder: Path, student: str, unit: str = UNIT) -> Any:
    """The graded notebook of a student."""
    return nbformat.read(folder / "autograded" / student / unit / f"{unit}.ipynb", 4)


def feedback(folder: Path, student: str, unit: str = UNIT) -> str:
    """The feedback page of a student."""
    return (folder / "feedback" / student / unit / f"{unit}.html").read_text(encoding="utf-8")


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, to compare with later; the lock that a grader leaves is none."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "grading.lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
