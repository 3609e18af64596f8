"""The units themselves, through the doors that learners, CI and instructors use."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kicourse.grading import class_folder
from kicourse.syllabus import course

BIN = Path(sys.executable).parent
FIRST, *OTHERS = (unit.slug for unit in course().finished)


def without_provider() -> dict[str, str]:
    """The environment of somebody who has only what comes along."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}


@pytest.mark.parametrize("slug", [FIRST, *(pytest.param(slug, marks=pytest.mark.long) for slug in OTHERS)])
def test_kicourse_check_gives_a_solution_full_marks_and_an_untouched_exercise_none(slug: str, tmp_path: Path) -> None:
    unit, results = course().unit(slug), tmp_path / "results.json"
    notebooks = [str(unit.solution("en")), str(unit.exercise("de"))]
    command = [str(BIN / "kicourse"), "check", *notebooks, "--json", str(results)]
    done = subprocess.run(command, env=without_provider(), capture_output=True, text=True, check=False)
    solved, untouched = json.loads(results.read_text())
    assert (solved["score"], solved["max_score"]) == (10, 10), done.stdout
    assert {task["status"] for task in solved["tasks"]} == {"passed"}, done.stdout
    assert untouched["score"] == 0, done.stdout
    assert {task["status"] for task in untouched["tasks"]} == {"not_started"}, done.stdout
    assert done.returncode == 1, "exercises without full marks fail the run"


def test_nbgrader_makes_the_same_exercises(tmp_path: Path) -> None:
    folder = class_folder.new(tmp_path / "class", "de")
    for unit in course().finished:
        released = (folder / "release" / unit.slug / f"{unit.slug}.ipynb").read_text()
        assert json.loads(released) == json.loads(unit.exercise("de").read_text()), unit.slug


@pytest.mark.long
def test_nbgrader_marks_a_unit_that_talks_to_the_gpt(tmp_path: Path) -> None:
    folder = class_folder.new(tmp_path / "class", "de", ["first_call"])
    unit = course().unit("first_call")
    for student, notebook in (("ada", unit.solution("en")), ("bob", unit.exercise("de"))):
        place = folder / "submitted" / student / unit.slug
        place.mkdir(parents=True)
        shutil.copyfile(notebook, place / f"{unit.slug}.ipynb")
    for arguments in (["autograde", unit.slug], ["export"]):
        command = [str(BIN / "nbgrader"), *arguments]
        subprocess.run(command, cwd=folder, env=without_provider(), capture_output=True, check=True)
    with (folder / "grades.csv").open() as file:
        marks = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert marks == {"ada": 10, "bob": 0}
