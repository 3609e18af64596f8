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


def without_provider() -> dict[str, str]:
    """The environment of somebody who has only what comes along."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}


def test_kicourse_check_gives_solutions_full_marks_and_untouched_exercises_none(tmp_path: Path) -> None:
    solutions = [unit.solution("en") for unit in course().finished]
    exercises = [unit.exercise("de") for unit in course().finished]
    results = tmp_path / "results.json"
    command = [str(BIN / "kicourse"), "check", *map(str, solutions + exercises), "--json", str(results)]
    done = subprocess.run(command, env=without_provider(), capture_output=True, text=True, check=False)
    reports = json.loads(results.read_text())
    for report in reports[: len(solutions)]:
        assert (report["score"], report["max_score"]) == (10, 10), done.stdout
        assert {task["status"] for task in report["tasks"]} == {"passed"}, done.stdout
    for report in reports[len(solutions) :]:
        assert report["score"] == 0, done.stdout
        assert {task["status"] for task in report["tasks"]} == {"not_started"}, done.stdout
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
