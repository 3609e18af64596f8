"""`kicourse grade` as instructors use it: what comes out, what goes in wrongly, and that nothing of it is lost."""

import csv
import html
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from traitlets.config import PyFileConfigLoader

from kicourse import cli
from kicourse.grading.job import Outcome, read_outcome
from kicourse.grading.nbgrader_seam import prepare_nbgrader
from kicourse.grading.seeds import secret_of, seed_for
from kicourse.grading.writing import LEFT_OUT
from kicourse.grading.writing_process import WritingProcess
from kicourse.syllabus import course
from tests.grading.class_room import (
    BIN,
    DEADLINE,
    NOTHING,
    POINTS,
    UNIT,
    environment,
    feedback,
    grade,
    grade_for_json,
    gradebook_of,
    graded,
    half,
    hand_in,
    marks,
    new_class,
    require_single_rows,
    snapshot,
    solved,
    totals,
    wrong,
)

LIMITS = f"[{UNIT}]\nseconds = 10\n"
CRASH = "import os\nos._exit(3)"
ENDLESS = "def cost(usage, prices):\n    import time\n    while True:\n        time.sleep(1)"
FILES = "for number in range(60):\n    open(str(number), 'w').close()\nimport time\ntime.sleep(9)"
OWN_CELLS = (
    ("setup", "import asyncio\nawait asyncio.sleep(0)\nprint('awaited', 6 * 7)"),
    ("setup", "!echo said $((40 + 2)) by the shell"),
    ("setup", "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()"),
    ("setup", "import pandas as pd\npd.DataFrame({'pump': ['Bertha'], 'bar': [4.25]})"),
    ("setup", "from openai import OpenAI\nhello = [{'role': 'user', 'content': 'Hello'}]\n"
     "OpenAI().chat.completions.create(model='any', messages=hello, max_tokens=4).usage.completion_tokens"),
)  # fmt: skip
REFERENCE = ("setup", "try:\n    check.ask.reference()\nexcept Exception as error:\n    print('no:', error)")
LONG = "x" * 200
NAMED = "Jürgen Müller-Lüdenscheidt"
DOTTED = "o.k. 47.11"


def all_but(task: str) -> dict[str, float]:
    return POINTS | {task: 0.0}


# What each student has handed in, and the marks for it.
EXPECTED = {
    "ada": POINTS,
    "bea": NOTHING | {"cost": 2.5, "stream": 2.5},
    "cyd": NOTHING,
    "dan": NOTHING,
    "eve": NOTHING | {"cost": 2.5},
    "fay": all_but("cost"),
    "gus": POINTS,
    "hal": all_but("cost"),
    "ida": POINTS,
    "jon": POINTS,
    "kim": NOTHING,
    "mia": all_but("cost") | {"stream": 0.0},
    "ned": all_but("cost"),
    NAMED: NOTHING | {"cost": 2.5},
    DOTTED: NOTHING | {"stream": 2.5},
}


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]], str]:
    """A class that was graded once, with what `--json` and the terminal said."""
    place = tmp_path_factory.mktemp("graded")
    folder, results = new_class(tmp_path_factory, place / "class"), place / "results.json"
    (folder / ".kicourse" / "limits.toml").write_text(LIMITS)
    hand_in(folder, "ada", solved())
    hand_in(folder, "bea", half())
    hand_in(folder, "cyd", wrong())
    hand_in(folder, "dan")
    hand_in(folder, "eve", {"cost": solved()["cost"]}, OWN_CELLS)
    hand_in(folder, "fay", solved() | {"cost": CRASH})
    hand_in(folder, "gus", solved(), [("stream-check", CRASH)])
    hand_in(folder, "hal", solved() | {"cost": ENDLESS})
    hand_in(folder, "ida", solved(), [("cost-check", "import threading\nthreading.Event().wait()")])
    hand_in(folder, "jon", solved(), [REFERENCE])
    hand_in(folder, "kim").write_text('{"cells": [')
    hand_in(folder, "mia", solved() | {"cost": CRASH, "stream": CRASH})
    hand_in(folder, "ned", solved() | {"cost": "def cost(usage, prices):\n    import os\n    os._exit(0)"})
    hand_in(folder, NAMED, {"cost": solved()["cost"]})
    hand_in(folder, DOTTED, {"stream": solved()["stream"]})
    for unusable in ("back\\slash", ".hidden", LONG):
        hand_in(folder, unusable, half())
    hand_in(folder, "ada", solved(), unit="no_unit")
    said = grade(folder, "--json", str(results))
    return folder, {one["student"]: one for one in json.loads(results.read_text(encoding="utf-8"))}, said


@pytest.fixture
def class_copy(first_run: tuple[Path, Any, Any], tmp_path: Path) -> Path:
    """The class that was graded once, to go on with."""
    return Path(shutil.copytree(first_run[0], tmp_path / "class"))


@pytest.mark.parametrize("student", EXPECTED)
def test_the_gradebook_has_the_right_marks(first_run: tuple[Path, Any, Any], student: str) -> None:
    """A crash or an endless loop costs its task only; a cell of the learner's own costs nothing at all."""
    assert marks(first_run[0])[student] == EXPECTED[student]


def test_nobody_is_missing_or_made_up(first_run: tuple[Path, Any, Any]) -> None:
    folder, _results, _said = first_run
    assert marks(folder).keys() == EXPECTED.keys()
    require_single_rows(folder)
    with gradebook_of(folder) as gradebook:
        assert {student.id for student in gradebook.students} == EXPECTED.keys()


def test_graded_notebooks_and_feedback_lie_where_nbgrader_looks(first_run: tuple[Path, Any, Any]) -> None:
    folder, _results, _said = first_run
    for student in EXPECTED:
        shown = {
            cell.metadata.nbgrader.grade_id.removesuffix("-check"): cell.outputs[0].data["text/plain"]
            for cell in graded(folder, student).cells
            if cell.metadata.get("nbgrader", {}).get("grade")
        }
        assert {task: float(points) for task, points in shown.items()} == marks(folder)[student]
        assert "</html>" in feedback(folder, student)
    config: Any = PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config()
    api = NbGraderAPI(coursedir=CourseDirectory(config=config), config=config)
    # nbgrader lists every folder under submitted/, as not graded yet.
    rows = {row["student"]: row for row in api.get_submissions(UNIT) if row["student"] in EXPECTED}
    assert {student: row["score"] for student, row in rows.items()} == totals(folder)
    assert all(row["autograded"] and not row["needs_manual_grade"] for row in rows.values())


def test_nbgrader_exports_the_marks(class_copy: Path) -> None:
    command = [str(BIN / "nbgrader"), "export", "--to=grades.csv"]
    subprocess.run(command, cwd=class_copy, env=environment(), capture_output=True, check=True, timeout=DEADLINE)
    with (class_copy / "grades.csv").open(encoding="utf-8") as file:
        rows = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    assert rows == {student: (sum(points.values()), 10) for student, points in marks(class_copy).items()}


def test_json_says_the_same(first_run: tuple[Path, Any, Any]) -> None:
    folder, results, _said = first_run
    assert results.keys() == EXPECTED.keys()
    for student, result in results.items():
        message = {"message"} if student == "kim" else set()
        assert result.keys() == {"student", "unit", "score", "max_score", "status", "seconds", "tasks"} | message
        assert (result["unit"], result["max_score"]) == (UNIT, 10)
        assert result["status"] == ("unreadable" if student == "kim" else "graded")
        assert {task["task"]: task["points"] for task in result["tasks"]} == marks(folder)[student]
        assert {task["task"]: task["max_points"] for task in result["tasks"]} == POINTS
        assert result["score"] == sum(task["points"] for task in result["tasks"])
        assert isinstance(result["seconds"], int | float)
        for task in result["tasks"]:
            assert task.keys() == {"task", "points", "max_points", "status", "criteria"}
            assert all(one.keys() == {"name", "status", "message"} for one in task["criteria"])
    assert {task["status"] for task in results["ada"]["tasks"]} == {"passed"}
    assert {task["status"] for task in results["dan"]["tasks"]} == {"not_started"}
    assert {one["status"] for one in results["ada"]["tasks"][1]["criteria"]} == {"passed"}
    assert results["cyd"]["tasks"][1]["criteria"][0]["status"] == "failed"


def test_the_reason_why_a_submission_cannot_be_read_is_in_its_feedback(first_run: tuple[Path, Any, Any]) -> None:
    folder, results, said = first_run
    assert "its content is not JSON" in results["kim"]["message"]
    assert "its content is not JSON" in feedback(folder, "kim")
    assert "its content is not JSON" in said


@pytest.mark.parametrize("student", ["fay", "gus", "hal", "ida", "ned"])
def test_feedback_names_what_ended_or_hung(first_run: tuple[Path, Any, Any], student: str) -> None:
    page = feedback(first_run[0], student)
    assert any(words in page for words in ("ended, or broke off, in this cell", "took longer than", "seconds"))
    assert ("ended, or broke off" in page) == (student in ("fay", "gus", "ned"))


def test_what_own_cells_show_is_in_the_graded_notebook(first_run: tuple[Path, Any, Any]) -> None:
    cells = {cell.source: cell.outputs for cell in graded(first_run[0], "eve").cells if cell.cell_type == "code"}
    awaited, shell, figure, frame, reply = (cells[source] for _place, source in OWN_CELLS)
    assert awaited[0].text == "awaited 42\n"
    assert shell[0].get("text", shell[0]).strip() == "said 42 by the shell"
    assert any("image/png" in output.get("data", {}) for output in figure), figure
    assert "Bertha" in frame[0].data["text/plain"]
    assert "4.25" in frame[0].data["text/plain"]
    assert reply[0].data["text/plain"] == "4", "the embedded GPT answers"
    assert {kind for outputs in (awaited, shell, figure, frame) for one in outputs for kind in one.get("data", {})} <= {
        "text/plain",
        "image/png",
    }


def test_reference_is_off(first_run: tuple[Path, Any, Any]) -> None:
    outputs = [cell.outputs for cell in graded(first_run[0], "jon").cells if cell.get("source") == REFERENCE[1]]
    assert "reference() is off" in outputs[0][0].text


def test_what_is_no_submission_is_reported(first_run: tuple[Path, Any, Any]) -> None:
    folder, _results, said = first_run
    assert "Left out: submitted/ada/no_unit (the class does not have this unit)." in said
    for name in (".hidden", LONG):
        assert name in said.replace("\n", "")
    assert "back\\\\slash" in said, "written so that nobody takes it for something else"
    assert {path.name for path in (folder / "autograded").iterdir()} == EXPECTED.keys()
    assert {path.name for path in (folder / "feedback").iterdir()} == EXPECTED.keys()


def test_what_lies_in_the_wrong_place_is_told(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = new_class(tmp_path_factory, tmp_path / "class")
    submitted = folder / "submitted"
    content = hand_in(folder, "ada", {"cost": solved()["cost"]}).read_bytes()
    (submitted / "ada" / UNIT / "timestamp.txt").write_text("yesterday evening")
    for place in ("zoe.ipynb", f"max/{UNIT}.ipynb", f"eva/{UNIT}/{UNIT} (1).ipynb", ".DS_Store", "max/.DS_Store"):
        (submitted / place).parent.mkdir(parents=True, exist_ok=True)
        (submitted / place).write_bytes(content)
    (submitted / "linked").symlink_to(submitted / "ada")
    (submitted / "all.zip").write_bytes(b"PK")
    (submitted / "ada" / UNIT / f"{UNIT} (1).ipynb").write_bytes(content)
    (submitted / "max" / "link").symlink_to(submitted / "ada" / UNIT)
    submitted.rename(tmp_path / "collected")
    submitted.symlink_to(tmp_path / "collected")
    said = grade(folder)
    assert [line for line in said.splitlines() if line.startswith("Left out")] == [
        "Left out: submitted/all.zip (a submission lies in submitted/STUDENT/UNIT/UNIT.ipynb).",
        "Left out: submitted/linked (it is a link, and none is followed).",
        "Left out: submitted/zoe.ipynb (a submission lies in submitted/STUDENT/UNIT/UNIT.ipynb).",
        "Left out: submitted/ada/first_call/first_call (1).ipynb (what counts is first_call.ipynb).",
        'Left out: submitted/ada/first_call/timestamp.txt (it names no time, as "2026-03-01 10:00:00 UTC" does).',
        "Left out: submitted/max/first_call.ipynb (it belongs into a folder: max/UNIT/UNIT.ipynb).",
        "Left out: submitted/max/link (it is a link, and none is followed).",
    ]
    named = f"There is no {UNIT}.ipynb in what was handed in, but '{UNIT} (1).ipynb'. Hand it in again under that name."
    assert named.partition(",")[0] in said
    page = feedback(folder, "eva")
    assert page.index(named) < page.index("</h1>"), "the reason stands at the top"
    assert marks(folder) == {"ada": NOTHING | {"cost": 2.5}, "eva": NOTHING}
    (submitted / "max" / "link").unlink()
    said = grade(folder, "--force", "--student", "eva")
    assert "Left out" not in said
    (submitted / "linked").unlink()
    prepare_nbgrader()
    api = NbGraderAPI(config=PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config())
    assert {one["student"]: one["score"] for one in api.get_submissions(UNIT)} == {"ada": 2.5, "eva": 0}


def test_what_has_no_release_any_more_got_no_mark(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = new_class(tmp_path_factory, tmp_path / "class")
    hand_in(folder, "ada", {"cost": solved()["cost"]})
    (folder / "source" / "bert").mkdir()
    (folder / "submitted" / "eva" / "bert").mkdir(parents=True)
    said = grade(folder, status=1)
    why = "its release is missing: run `nbgrader generate_assignment bert`"
    assert f"Left out: submitted/eva/bert ({why})." in said
    assert marks(folder) == {"ada": NOTHING | {"cost": 2.5}}, "the others have theirs"
    grade(folder, "--student", "ada")
    grade(folder, "--unit", UNIT)


def test_results_replace_no_other_file(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = new_class(tmp_path_factory, tmp_path / "class")
    hand_in(folder, "ada")
    said = grade(folder, "--json", str(folder / "gradebook.db"), status=2)
    assert "gradebook.db is there already, and is no file of results." in said
    for _again in range(2):
        grade(folder, "--json", str(tmp_path / "marks.json"))


IN_GERMAN = {
    "broken": "Das ist kein Notebook: Der Inhalt ist kein JSON. `kicourse lab` legt eine frische Kopie",
    "bound": "Das Notebook hat das Format 3; kicourse liest Format 4. Wandle es um: jupyter nbconvert",
    "crashed": "Der Prozess dieses Notebooks endete in dieser Zelle oder brach ab (die Gegenseite ist nicht mehr da).",
    "endless": "Die Zelle brauchte länger als 10 Sekunden.",
    "forgetful": f"In der Abgabe fehlt {UNIT}.ipynb. Gib es noch einmal ab.",
    "greedy": "Die Bewertung wurde in dieser Zelle abgebrochen: es schrieb mehr als 512 MiB oder 50 Dateien.",
    "linked": f"'{UNIT}.ipynb' ist ein Link. Gib die Datei selbst ab, in einem gewöhnlichen Ordner.",
    "mistaken": f"Das ist das Notebook der Einheit „bert“, nicht das von „{UNIT}“. Gib das richtige ab.",
    "silent": "Die Prüfzelle endete ohne Urteil; in ihr sollte <code>check.cost(...)</code> stehen.",
}
"""What becomes of submissions that fail to be graded, or to hand an answer in, as a German class is told."""


def test_a_german_class_is_told_in_german(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = new_class(tmp_path_factory, tmp_path / "class")
    (folder / ".kicourse" / "language").write_text("de\n")
    (folder / ".kicourse" / "limits.toml").write_text(f"{LIMITS}files = 50\n")
    hand_in(folder, "broken").write_text('{"cells": ')
    hand_in(folder, "bound").write_text('{"nbformat": 3}')
    hand_in(folder, "crashed", {"cost": CRASH})
    hand_in(folder, "endless", {"cost": ENDLESS}, [("cost", "while True:\n    pass")])
    hand_in(folder, "forgetful").unlink()
    hand_in(folder, "greedy", {"cost": FILES})
    path = hand_in(folder, "linked")
    path.unlink()
    path.symlink_to(hand_in(folder, "untouched"))
    shutil.copyfile(course().unit("bert").exercise("de"), hand_in(folder, "mistaken"))
    hand_in(folder, "silent", {"cost": "class check:\n    cost = print\n\n\ncost = None"})
    results = grade_for_json(folder)
    pages = {student: html.unescape(feedback(folder, student)) for student in results}
    for student, told in IN_GERMAN.items():
        assert told in pages[student], student
    assert "Nicht bewertet" in pages["broken"]
    assert "nicht begonnen" in pages["untouched"]
    for english in ("Not graded", "not started", "It cannot be", "Grading was"):
        assert not any(english in page for page in pages.values()), english


def keep(folder: Path, *students: str) -> None:
    """Take the other submissions away."""
    for path in (folder / "submitted").iterdir():
        if path.name not in students:
            shutil.rmtree(path)


def test_only_what_changed_is_graded_again(class_copy: Path) -> None:
    keep(class_copy, "ada", "bea", "kim")
    before = {name: content for name, content in snapshot(class_copy).items() if not name.endswith(".db")}
    said = grade(class_copy)
    assert "3 graded before and unchanged" in said
    after = {name: content for name, content in snapshot(class_copy).items() if not name.endswith(".db")}
    assert after == before
    assert marks(class_copy) == {student: EXPECTED[student] for student in marks(class_copy)}

    hand_in(class_copy, "bea", {"stream": solved()["stream"]})
    hand_in(class_copy, "new", {"cost": solved()["cost"]})
    said = grade(class_copy, "--unit", UNIT, "--json", str(class_copy / "marks.json"))
    assert "2 graded before and unchanged" in said
    results = {one["student"]: one for one in json.loads((class_copy / "marks.json").read_text(encoding="utf-8"))}
    assert results.keys() == {"ada", "bea", "kim", "new"}, "everybody's marks, whenever they were made"
    assert {task["task"]: task["points"] for task in results["ada"]["tasks"]} == EXPECTED["ada"]
    assert marks(class_copy)["bea"] == NOTHING | {"stream": 2.5}
    assert marks(class_copy)["new"] == NOTHING | {"cost": 2.5}
    assert marks(class_copy)["ada"] == EXPECTED["ada"]
    require_single_rows(class_copy)


BROKEN = "import sys\nif 'kicourse.grading.fork_server' in sys.orig_argv:\n    sys.exit(3)\n"
"""A sitecustomize.py with which no judge starts."""


def test_what_could_not_be_graded_keeps_the_marks_that_it_has(class_copy: Path, tmp_path: Path) -> None:
    keep(class_copy, "ada", "dan", "kim")
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    before, earlier = marks(class_copy), snapshot(class_copy / "feedback")
    hand_in(class_copy, "ada", {"cost": solved()["cost"]})
    said = grade(class_copy, "--force", "--workers", "1", status=1, PYTHONPATH=str(tmp_path))
    assert said.count("This submission could not be graded") == 2, "the third one cannot be read, and needs no judge"
    assert "keeps the marks that it had" in said
    assert marks(class_copy) == before
    assert snapshot(class_copy / "feedback") == earlier
    said = grade(class_copy)
    assert "2 graded before and unchanged" in said
    assert marks(class_copy)["ada"] == NOTHING | {"cost": 2.5}


def test_a_judge_that_is_killed_is_no_mark(class_copy: Path) -> None:
    keep(class_copy, "ada")
    before = marks(class_copy)
    run = [str(BIN / "kicourse"), "grade", str(class_copy), "--force", "--workers", "1"]
    process = subprocess.Popen(run, env=environment(), stdout=subprocess.PIPE, text=True)
    judges = set()
    while process.poll() is None:
        for child in psutil.Process(process.pid).children():
            with suppress(psutil.Error):
                if child.cmdline()[-2:] == ["kicourse.grading.fork_server", "judge"]:
                    for judge in child.children():
                        judges.add(judge.pid)
                        judge.kill()
        time.sleep(0.01)
    said = process.communicate()[0]
    assert len(judges) > 3
    assert process.returncode == 1
    assert "could not be graded" in said
    assert marks(class_copy) == before
    assert "1 graded before and unchanged" in grade(class_copy)


@pytest.mark.parametrize("damage", ["type", "source", "check", "cells", "points", "unit"])
def test_a_release_that_is_damaged_is_told(class_copy: Path, damage: str) -> None:
    keep(class_copy, "ada")
    path = class_copy / "release" / UNIT / f"{UNIT}.ipynb"
    release = json.loads(path.read_text(encoding="utf-8"))
    graded = [cell for cell in release["cells"] if cell["metadata"].get("nbgrader", {}).get("grade")]
    if damage == "type":
        del graded[0]["cell_type"]
    elif damage == "source":
        del graded[0]["source"]
    elif damage == "check":
        release["cells"].remove(graded[0])
    elif damage == "cells":
        release["cells"], release["metadata"] = [], {}
    elif damage == "points":
        graded[0]["metadata"]["nbgrader"]["points"] = "many"
    else:
        release["metadata"]["kicourse"] = 3
    path.write_text(json.dumps(release))
    assert f"Make it anew: nbgrader generate_assignment {UNIT} --force" in grade(class_copy, "--force", status=1)
    assert marks(class_copy)["ada"] == POINTS


def test_another_time_of_handing_in_is_a_change(class_copy: Path) -> None:
    keep(class_copy, "ada", "bea")
    stamp = class_copy / "submitted" / "ada" / UNIT / "timestamp.txt"
    for moment in ("2026-03-01 10:00:00 UTC", "2026-03-05 10:00:00 UTC"):
        stamp.write_text(moment)
        said = grade(class_copy)
        assert "1 graded before and unchanged" in said
        with gradebook_of(class_copy) as gradebook:
            assert f"{gradebook.find_submission(UNIT, 'ada').timestamp} UTC" == moment
    assert "2 graded before and unchanged" in grade(class_copy)


def test_the_coordinator_leaves_nbgrader_to_the_process_that_writes() -> None:
    """To import it would delay the first mark by a second."""
    code = (
        "import sys\nfrom kicourse.grading import grade\nfrom kicourse.grading.open_class import moment_of\n"
        "texts = None, ' ', '2026-03-01 10:00:00 UTC', '2026-03-01 10:00:00.500000 UTC\\n'\n"
        "found = list(map(moment_of, texts))\n"
        "print(*found, 'nbgrader' in sys.modules, moment_of('2026-03-01 10:00:00 CET'), moment_of('soon'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = "None None 2026-03-01 10:00:00 2026-03-01 10:00:00.500000 False 2026-03-01 09:00:00 None"
    assert done.stdout.strip() == expected


def test_a_file_for_the_results_is_looked_at_first(class_copy: Path) -> None:
    keep(class_copy, "kim")
    assert "it is a folder. Name a file" in grade(class_copy, "--json", str(class_copy), status=2)
    said = grade(class_copy, "--json", "/dev/full", "--force", status=1)
    assert "kim" in said, "the table is there all the same"
    assert "/dev/full cannot be written (No space left on device)" in said


def test_what_is_damaged_in_the_folder_is_told(class_copy: Path) -> None:
    keep(class_copy, "kim")
    for path in (class_copy / ".kicourse" / "written").rglob("*"):
        if path.is_file():
            path.write_bytes(b"\xff\xfe")
    grade(class_copy)
    assert "1 graded before and unchanged" in grade(class_copy)
    for name in ("language", "version"):
        path = class_copy / ".kicourse" / name
        content = path.read_bytes()
        path.write_bytes(b"\xff")
        assert f"{name} cannot be read" in grade(class_copy, status=1)
        path.write_bytes(content)


def test_a_notebook_of_another_unit_is_told(class_copy: Path) -> None:
    keep(class_copy, "ada")
    other = course().unit("tokenizer").solution("en")
    (class_copy / "submitted" / "ada" / UNIT / f"{UNIT}.ipynb").write_bytes(other.read_bytes())
    assert "It is the notebook of the unit 'tokenizer', not of 'first_call'" in grade(class_copy)
    assert marks(class_copy)["ada"] == NOTHING


def test_force_grades_everybody_and_a_persons_grade_stays(class_copy: Path) -> None:
    keep(class_copy, "ada", "jon", "kim")
    with gradebook_of(class_copy) as gradebook:
        by_hand = gradebook.find_grade("cost-check", UNIT, UNIT, "ada")
        by_hand.manual_score, by_hand.needs_manual_grade = 1.0, False
        gradebook.db.commit()
    # References are allowed in this run: who takes one gets nothing for the task.
    results = grade_for_json(class_copy, "--force", "--workers", "1", KICOURSE_REFERENCE="on")
    assert results.keys() == {"ada", "jon", "kim"}
    assert marks(class_copy)["ada"] == POINTS | {"cost": 1.0}
    assert marks(class_copy)["jon"] == all_but("ask")
    with gradebook_of(class_copy) as gradebook:
        by_hand = gradebook.find_grade("cost-check", UNIT, UNIT, "ada")
        assert (by_hand.manual_score, by_hand.auto_score) == (1.0, 2.5)
    assert "One submission has marks by hand" in grade(class_copy, "--student", "ada", KICOURSE_REFERENCE="on")
    said = grade(class_copy, "--student", "jon", KICOURSE_REFERENCE="on")
    assert "1 graded before and unchanged" in said
    assert "by hand" not in said
    hand_in(class_copy, "jon", solved())
    assert "1 graded before" not in grade(class_copy, "--student", "jon")
    assert marks(class_copy)["jon"] == all_but("ask"), "what was given up stays given up"
    require_single_rows(class_copy)


def asks(grammar: str) -> tuple[str, str]:
    """An own cell that asks the GPT's server for a reply in a grammar of its own, and goes on after a while."""
    return (
        "setup",
        f"""import json, os, urllib.request
content = json.dumps({{"prompt": "x", "n_predict": 3, "grammar": {grammar}}}).encode()
headers = {{"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}}
url = os.environ["OPENAI_BASE_URL"].removesuffix("/v1") + "/completion"
try:
    urllib.request.urlopen(urllib.request.Request(url, content, headers), timeout=4)
except OSError as error:
    print("the server:", error)""",
    )


def test_what_a_submission_does_to_the_gpt_is_not_the_next_ones_affair(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = new_class(tmp_path_factory, tmp_path / "class")
    polite = 'OpenAI(timeout=15, max_retries=0).chat.completions.create(model=MODEL, max_tokens=4, messages=[{"role": '
    polite += '"user", "content": "Hello"}])\n'
    hand_in(folder, "a-kills", {}, [asks("""'root ::= ' + '(' * 50_000 + '"a"' + ')' * 50_000""")])
    hand_in(folder, "b-honest", solved() | {"ask": polite + solved()["ask"]})
    hand_in(folder, "c-hogs", {}, [asks("""'root ::= ' + '("a"?)' * 3_000""")])
    hand_in(folder, "d-honest", solved() | {"ask": polite + solved()["ask"]})
    grade(folder, "--workers", "1")
    said = [
        str(cell.outputs) for name in ("a-kills", "c-hogs") for cell in graded(folder, name).cells if "outputs" in cell
    ]
    assert sum("the server:" in outputs for outputs in said) == 2, "both have done what they are here for"
    assert marks(folder) == {"a-kills": NOTHING, "b-honest": POINTS, "c-hogs": NOTHING, "d-honest": POINTS}


def test_processes_that_others_left_behind_are_not_what_the_next_one_lacks(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    leave = "import os, time\nfor _ in range(40):\n    if os.fork() == 0:\n        time.sleep(60)"
    make = "import subprocess\nmade = [subprocess.Popen(['sleep', '0.5']) for _ in range(40)]\n"
    make += "print(sum(one.wait() == 0 for one in made), 'have ended')"
    folder = new_class(tmp_path_factory, tmp_path / "class")
    for student, own in (("a", leave), ("b", leave), ("c", make)):
        hand_in(folder, student, {}, [("setup", own)])
    grade(folder, "--workers", "1")
    said = [output.get("text") for cell in graded(folder, "c").cells for output in cell.get("outputs", ())]
    assert "40 have ended\n" in said


SLOW_TO_COLOUR = "x = 1" + " \n" * 4_990 + "x = 2"
"""Pygments takes seconds for it, and four times as many for one that is twice as long."""


def kept_outcome(folder: Path, student: str) -> Outcome:
    """What the store of a class keeps of a student."""
    contents = (
        json.loads(path.read_text(encoding="utf-8")) for path in (folder / ".kicourse" / "results").rglob("*.json")
    )
    content = next(content for content in contents if content["student"] == student)
    return read_outcome(content | {"notebook": content["notebook"].encode()})


def with_own_cells(outcome: Outcome, *sources: str) -> Outcome:
    notebook = nbformat.reads(outcome.notebook.decode(), 4)
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in sources]
    return replace(outcome, notebook=nbformat.writes(notebook).encode())


def test_a_page_that_cannot_be_made_in_time_has_the_marks_all_the_same(class_copy: Path) -> None:
    outcome = kept_outcome(class_copy, "ada")
    slow = with_own_cells(outcome, *(f"{SLOW_TO_COLOUR}{number}" for number in range(20)))
    before = feedback(class_copy, "ada")
    with WritingProcess(class_copy, f"sqlite:///{class_copy / 'gradebook.db'}", seconds=2) as writer:
        writer.written("ada", UNIT)  # it has started
        writer.write(slow, None)
        without = feedback(class_copy, "ada")
        answers = sum(
            cell.metadata.get("nbgrader", {}).get("solution", False) for cell in graded(class_copy, "ada").cells
        )
        assert without.count(LEFT_OUT[:40]) == 20 + answers, "what the release has stands there as before"
        assert "x = 2" not in without
        assert f"{UNIT} (Score: 10.0 / 10.0)" in without
        assert without.count("output_execute_result") == before.count("output_execute_result") > 0
        assert slow.notebook == (class_copy / "autograded" / "ada" / UNIT / f"{UNIT}.ipynb").read_bytes()
        assert writer._process
        writer._process.kill()
        writer.write(outcome, None)
    assert feedback(class_copy, "ada") == before
    assert marks(class_copy)["ada"] == EXPECTED["ada"]
    require_single_rows(class_copy)


def test_colours_have_an_end(class_copy: Path) -> None:
    outcome = with_own_cells(kept_outcome(class_copy, "ada"), SLOW_TO_COLOUR * 100 + "<script>")
    with WritingProcess(class_copy, f"sqlite:///{class_copy / 'gradebook.db'}") as writer:
        writer.write(outcome, None)
    page = feedback(class_copy, "ada")
    assert LEFT_OUT[:40] not in page
    assert "x = 2&lt;script&gt;" in page


def test_one_student_is_graded_if_only_one_is_named(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = new_class(tmp_path_factory, tmp_path / "class")
    for student in ("ada", "bob"):
        hand_in(folder, student).write_text("no notebook")  # which takes no time
    assert grade_for_json(folder, "--student", "bob").keys() == {"bob"}
    assert marks(folder) == {"bob": NOTHING}


@pytest.mark.long
def test_check_gives_the_same_points(first_run: tuple[Path, Any, Any], tmp_path: Path) -> None:
    folder, results, _said = first_run
    students = ("ada", "cyd", "fay", DOTTED)
    notebooks = [str(folder / "submitted" / student / UNIT / f"{UNIT}.ipynb") for student in students]
    command = [str(BIN / "kicourse"), "check", *notebooks, "--json", str(tmp_path / "check.json")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert done.returncode == 1, done.stderr
    for student, report in zip(students, json.loads((tmp_path / "check.json").read_text()), strict=True):
        points = [(task["task"], task["points"], task["status"]) for task in report["tasks"]]
        assert points == [(task["task"], task["points"], task["status"]) for task in results[student]["tasks"]], student


def test_seeds_are_new_for_whatever_is_new(tmp_path: Path) -> None:
    secret = secret_of(tmp_path / "secret")
    usual = (secret, UNIT, "ask", "ada", b"notebook")
    others = [
        (bytes(32), *usual[1:]),
        (secret, "mini_gpt", *usual[2:]),
        (secret, UNIT, "cost", *usual[3:]),
        (*usual[:3], "bob", usual[4]),
        (*usual[:4], b"changed"),
    ]
    assert seed_for(*usual) == seed_for(*usual)
    assert len({seed_for(*usual), *(seed_for(*other) for other in others)}) == len(others) + 1
    assert secret_of(tmp_path / "secret") == secret, "once made, it stays"
    assert secret_of(tmp_path / "other") != secret
    assert len(secret) == 32
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


# ---------------------------------------------------------------- what goes in wrongly


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process, without the seconds that a new one takes: its exit status and what it said."""

    def run(folder: Path, *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["kicourse", "grade", str(folder), *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        # typer ends without an error with None.
        return int(ended.value.code or 0), said.out + said.err

    return run


@pytest.fixture
def small_class(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class with one submission, which is not graded yet."""
    folder = new_class(tmp_path_factory, tmp_path / "class")
    hand_in(folder, "ada", half())
    return folder


def changed(files: dict[str, bytes], folder: Path) -> set[str]:
    """What differs now; the class's secret and lock are nobody's loss."""
    now = snapshot(folder)
    return {name for name in files.keys() | now.keys() if files.get(name) != now.get(name)} - {".kicourse/secret"}


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    said = grade(tmp_path / "nowhere", status=2)
    assert "There is no folder" in said
    assert f"kicourse class new {tmp_path / 'nowhere'}" in said
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_class_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    status, said = run(tmp_path)
    assert status == 2
    assert "No class folder" in said
    assert "nbgrader_config.py" in said
    assert snapshot(tmp_path) == {"thesis.txt": b"all of it"}


def broken_release(folder: Path) -> None:
    (folder / "release" / UNIT / f"{UNIT}.ipynb").write_text("{broken")


def other_points(release: Path) -> None:
    notebook = nbformat.read(release, 4)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "cost-check":
            cell.metadata.nbgrader.points = 4
    nbformat.write(notebook, release)


def gradebook_of_another_nbgrader(folder: Path) -> None:
    with sqlite3.connect(folder / "gradebook.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '724cde206c17'")
    database.close()


WRONG_USE: dict[str, tuple[tuple[str, ...], Callable[[Path], Any] | None, int, tuple[str, ...]]] = {
    "a unit that the class does not have": (
        ("--unit", "mini_gpt"), None, 2, ("does not have the unit 'mini_gpt'", UNIT),
    ),
    "a student who is not there": (("--student", "zoe"), None, 2, ("'zoe'", "Check the student's ID")),
    "a student who is a way out": (("--student", ".."), None, 2, ("'..'", "Check the student's ID")),
    "a student who is nothing": (("--student", ""), None, 2, ("''", "Check the student's ID")),
    "one student of two is not there": (("--student", "ada", "--student", "zoe"), None, 2, ("'zoe'",)),
    "results into a folder that does not exist": (
        ("--json", "nowhere/results.json"), None, 2, ("nowhere/results.json", "folder"),
    ),
    "a gradebook that does not exist": (("--db", "sqlite:///nowhere.db"), None, 1, ("nowhere.db",)),
    "a gradebook of another nbgrader": (
        (), gradebook_of_another_nbgrader, 1, ("gradebook", "724cde206c17", "nbgrader db upgrade"),
    ),
    "a gradebook that is none": (
        (), lambda folder: (folder / "gradebook.db").write_bytes(b"no database at all" * 100), 1, ("gradebook",),
    ),
    "a class made with another kicourse": (
        (), lambda folder: (folder / ".kicourse" / "version").write_text("0.0.1\n"), 1,
        ("made with kicourse 0.0.1", "pip install kicourse==0.0.1"),
    ),
    "limits that are no TOML": (
        (), lambda folder: (folder / ".kicourse" / "limits.toml").write_text("[first_call\nseconds="), 1,
        ("limits.toml", "cannot be read", "seconds = 60"),
    ),
    "limits that do not exist": (
        (), lambda folder: (folder / ".kicourse" / "limits.toml").write_text("[first_call]\nhours = 2"), 1,
        ("limits.toml", "no limit hours", "seconds"),
    ),
    "limits of a unit that does not exist": (
        (), lambda folder: (folder / ".kicourse" / "limits.toml").write_text("[second_call]\nseconds = 2"), 1,
        ("limits.toml", "no unit second_call"),
    ),
    "limits that are no whole numbers": (
        (), lambda folder: (folder / ".kicourse" / "limits.toml").write_text("[first_call]\nprocesses = 2.5"), 1,
        ("limits.toml", "no whole numbers"),
    ),
    "limits below zero": (
        (), lambda folder: (folder / ".kicourse" / "limits.toml").write_text("[first_call]\nseconds = -2"), 1,
        ("limits.toml", "no positive numbers"),
    ),
    "limits beyond measure": (
        (), lambda folder: (folder / ".kicourse" / "limits.toml").write_text("[first_call]\nseconds = 10_000_000"), 1,
        ("limits.toml", "higher than 1,000,000"),
    ),
    "a release with other points": (
        (), lambda folder: other_points(folder / "release" / UNIT / f"{UNIT}.ipynb"), 1,
        (f"{UNIT}.ipynb gives 4 points for 'cost-check', whose check gives 2.5",),
    ),
    "a configuration that is no JSON": (
        (), lambda folder: (folder / "nbgrader_config.json").write_text("{"), 1,
        ("nbgrader_config.json cannot be read",),
    ),
    "a configuration that is no Python": (
        (), lambda folder: (folder / "nbgrader_config.py").write_text("c = get_config(\n"), 1,
        ("nbgrader_config.py cannot be read",),
    ),
    "a configuration that fails": (
        (), lambda folder: (folder / "nbgrader_config.py").write_text("import no_such_module\n"), 1,
        ("nbgrader_config.py cannot be read", "no_such_module"),
    ),
    "a release that is no notebook": ((), broken_release, 1, (f"{UNIT}.ipynb",)),
    "a secret that is none": (
        (), lambda folder: (folder / ".kicourse" / "secret").write_text("not hexadecimal"), 1, ("secret",),
    ),
    "a language that does not exist": (
        (), lambda folder: (folder / ".kicourse" / "language").write_text("fr\n"), 2, ("fr", "en, de"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_USE)
def test_wrong_use_is_said_and_changes_nothing(
    run: Run, small_class: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, spoil, expected_status, words = WRONG_USE[name]
    monkeypatch.chdir(small_class.parent)
    if spoil:
        spoil(small_class)
    before = snapshot(small_class)
    status, said = run(small_class, *arguments)
    assert status == expected_status, said
    assert not [word for word in words if word not in said], said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1, said
    assert changed(before, small_class) == set()


def test_nothing_handed_in(run: Run, small_class: Path) -> None:
    keep(small_class)
    assert run(small_class)[0] == 0
    shutil.rmtree(small_class / "submitted")
    (small_class / "submitted" / "Béla").mkdir(parents=True)
    for arguments, whom in (((), "of these units."), (("--student", "Béla"), "of these units by Béla.")):
        status, said = run(small_class, *arguments)
        assert status == 0
        assert "Nothing was handed in" in said
        assert whom in said


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Keep this user from writing into a folder, even if that is root. Skips the test where nothing does."""
    if os.geteuid() != 0:
        mode = folder.stat().st_mode
        folder.chmod(0o500)
        try:
            yield
        finally:
            folder.chmod(mode)
        return
    bind, protect = ["mount", "--bind", str(folder), str(folder)], ["mount", "-o", "remount,bind,ro", str(folder)]
    try:
        subprocess.run(bind, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"root is kept from writing by a read-only bind mount alone, and `mount --bind` fails: {error}")
    try:
        subprocess.run(protect, check=True, capture_output=True)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


@pytest.mark.skipif(os.name != "posix", reason="folders on Windows have no such mode")
def test_a_folder_that_cannot_be_written(run: Run, small_class: Path) -> None:
    before = snapshot(small_class)
    with read_only(small_class / ".kicourse"):
        status, said = run(small_class)
    assert status == 1
    assert ".kicourse cannot be written" in said
    assert "Make the folder writable" in said
    assert changed(before, small_class) == set()


def unreadable(folder: Path, *students: str) -> None:
    """Hand in what is graded at once: as zero, since it is no notebook."""
    for student in students:
        hand_in(folder, student).write_text("no notebook")


def test_a_gradebook_that_was_replaced_gets_all_the_marks_again(
    run: Run, small_class: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A backup was put back, say: what an earlier run noted is no proof that the marks are in this gradebook."""
    unreadable(small_class, "ada", "bob")
    fresh = (small_class / "gradebook.db").read_bytes()
    assert run(small_class)[0] == 0
    assert marks(small_class).keys() == {"ada", "bob"}
    (small_class / "gradebook.db").write_bytes(fresh)
    assert run(small_class)[0] == 0
    assert marks(small_class).keys() == {"ada", "bob"}


def test_another_gradebook_gets_all_the_marks_too(run: Run, small_class: Path) -> None:
    unreadable(small_class, "ada", "bob")
    other = shutil.copytree(small_class, small_class.parent / "other")
    assert run(small_class)[0] == 0
    assert run(small_class, "--db", f"sqlite:///{other / 'gradebook.db'}")[0] == 0
    assert marks(other).keys() == {"ada", "bob"}


def test_lost_files_come_back(run: Run, small_class: Path) -> None:
    unreadable(small_class, "ada", "bob")
    assert run(small_class)[0] == 0
    before = {name: content for name, content in snapshot(small_class).items() if not name.endswith(".db")}
    shutil.rmtree(small_class / "feedback" / "ada")
    shutil.rmtree(small_class / "autograded" / "bob")
    assert run(small_class)[0] == 0
    assert {name: content for name, content in snapshot(small_class).items() if not name.endswith(".db")} == before
    require_single_rows(small_class)


def test_a_missing_notebook_is_a_mark_of_zero_that_says_so(run: Run, small_class: Path) -> None:
    hand_in(small_class, "ada").rename(small_class / "submitted" / "ada" / UNIT / "mine.ipynb")
    status, said = run(small_class)
    assert status == 0
    assert f"There is no {UNIT}.ipynb" in said
    assert f"There is no {UNIT}.ipynb" in feedback(small_class, "ada")
    assert marks(small_class) == {"ada": NOTHING}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_folder_names_that_are_no_text_stop_nobody(run: Run, small_class: Path) -> None:
    unreadable(small_class, "ada")
    os.mkdir(os.fsencode(small_class / "submitted" / "ada") + b"/no\xfftext")
    os.mkdir(os.fsencode(small_class / "submitted") + b"/no\xfftext")
    (small_class / "submitted" / "ada" / "\x1b[31mred").mkdir()
    (small_class / "submitted" / "\x1b[31mred").mkdir()
    status, said = run(small_class)
    assert status == 0, said
    assert marks(small_class) == {"ada": NOTHING}
    assert "\x1b" not in said, "a folder's name reaches the terminal as a command"
    assert "red" in said


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")
def test_a_student_folder_that_is_a_link_is_not_passed_over_in_silence(run: Run, small_class: Path) -> None:
    unreadable(small_class, "ada")
    (small_class / "submitted" / "bob").symlink_to(small_class / "submitted" / "ada")
    _status, said = run(small_class)
    assert "bob" in said
