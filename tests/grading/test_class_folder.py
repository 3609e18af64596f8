"""A class folder, and what stock nbgrader does with it: its commands and the formgrader's button go to the judge."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import nbformat
import psutil
import pytest
from filelock import FileLock

import kicourse
from kicourse.errors import UsageError, UserError
from kicourse.grading import class_folder
from kicourse.grading.open_class import open_class
from kicourse.grading.processes import descendants
from kicourse.syllabus import UnknownUnitError
from tests.grading.class_room import (
    DEADLINE,
    NOTHING,
    POINTS,
    UNIT,
    environment,
    grade,
    gradebook_of,
    hand_in,
    marks,
    new_class,
    require_single_rows,
    solved,
    totals,
)
from tests.grading.notebooks import exercise, unit, write

SOLUTION = {
    "double": "def double(x):\n"
    "    ### BEGIN SOLUTION\n"
    "    return [2 * y for y in x] if isinstance(x, list) else 2 * x\n"
    "    ### END SOLUTION",
    "shout": "def shout(x):\n    ### BEGIN SOLUTION\n    return x.upper()\n    ### END SOLUTION",
}
STAMP = "2026-03-01 10:00:00.5 UTC"
SECRET = "the instructor's own"


def submit(folder: Path, student: str, answers: dict[str, str]) -> None:
    """Hand in the released notebook of the toy unit with some of its stubs filled in."""
    notebook = nbformat.read(folder / "release" / "maintenance" / "maintenance.ipynb", 4)
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = answers.get(name, cell.source)
    write(folder / "submitted" / student / "maintenance" / "maintenance.ipynb", notebook)


def nbgrader(folder: Path, *arguments: str) -> None:
    """Run stock nbgrader in a class folder, as from a shell in which nothing is activated."""
    command = [str(Path(sys.executable).with_name("nbgrader")), *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(PATH="/usr/bin:/bin"),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def room(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A class folder to work in; that it works after a move is a part of what is tested."""
    return new_class(tmp_path_factory, tmp_path / "class")


@dataclass(frozen=True)
class Classes:
    """The same class twice: one graded with nbgrader, the other with kicourse."""

    nbgraders: Path
    kicourses: Path


BROKEN = ("pipe", "link", "folder", "old", "broken", "empty", "nothing", "misnamed")
"""Students whose submissions nobody can read."""
BLANK = "first = 1" + " \n" * 5_000 + "last = 1"
"""Coloured, it would hold nbgrader's page up for seconds, and one ten times as long for minutes."""
WORKED: dict[str, dict[str, float]] = {
    "ada": POINTS,
    "bob": NOTHING,
    "cy": {"ask": 2, "cost": 0, "stream": 2.5, "conversation": 0},
    "dan": POINTS,
    "eve": POINTS | {"cost": 0},
    "newer": POINTS,
    "stamped": {"ask": 2, "cost": 0, "stream": 0, "conversation": 0},
    "surrounded": {"ask": 0, "cost": 2.5, "stream": 0, "conversation": 0},
}


def hand_in_all(folder: Path) -> None:
    """What the students of the two classes have handed in."""
    right = solved()
    ada = hand_in(folder, "ada", right)
    (ada.parent / "timestamp.txt").write_text(STAMP)
    hand_in(folder, "bob", {}, [("ask", BLANK)])
    hand_in(folder, "cy", {"ask": right["ask"], "stream": right["stream"]}, [("ask", "print('mine')\n1 / 0")])
    write(
        folder / "submitted" / "dan" / UNIT / f"{UNIT}.ipynb", exercise(right, without=("cost-check", "stream-check"))
    )
    hand_in(folder, "eve", right | {"cost": "def cost(usage, prices):\n    raise ValueError(usage)"})
    newer = hand_in(folder, "newer", right)
    newer.write_text(newer.read_text().replace('"schema_version": 3', '"schema_version": 99'))
    os.mkfifo(hand_in(folder, "stamped", {"ask": right["ask"]}).parent / "timestamp.txt")
    around = hand_in(folder, "surrounded", {"cost": right["cost"]}).parent
    (folder / "private.txt").write_text(SECRET)
    (around / "notes.txt").symlink_to(folder / "private.txt")
    (around / "all").symlink_to(folder / "source", target_is_directory=True)
    (around / "data.csv").write_text("1,2")
    _hand_in_broken(folder)


def _hand_in_broken(folder: Path) -> None:
    paths = {student: folder / "submitted" / student / UNIT / f"{UNIT}.ipynb" for student in BROKEN}
    for path in paths.values():
        path.parent.mkdir(parents=True)
    os.mkfifo(paths["pipe"])
    paths["link"].symlink_to(folder / "source" / UNIT / f"{UNIT}.ipynb")
    paths["folder"].mkdir()
    paths["old"].write_text(json.dumps({"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": []}))
    paths["broken"].write_text('{"cells": [')
    paths["empty"].write_text("")
    (paths["nothing"].parent / "timestamp.txt").write_text(STAMP)
    paths["misnamed"].with_stem(f"{UNIT} (1)").write_text("{}")


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Classes:
    place = tmp_path_factory.mktemp("classes")
    folder = new_class(tmp_path_factory, place / "nbgrader" / "class")
    assert open_class(folder).secret, "made at first use, and copied with the rest"
    other = Path(shutil.copytree(folder, place / "kicourse" / "class"))
    for each in (folder, other):
        hand_in_all(each)
    nbgrader(folder, "autograde", UNIT)
    nbgrader(folder, "generate_feedback", UNIT)
    grade(other)
    return Classes(folder, other)


@pytest.mark.long
def test_nbgraders_autograde_gives_the_right_marks(classes: Classes) -> None:
    found = marks(classes.nbgraders)
    assert {student: found[student] for student in WORKED} == WORKED
    nbgrader(classes.nbgraders, "export", "--to=grades.csv")
    with (classes.nbgraders / "grades.csv").open() as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    assert {student: float(row["score"]) for student, row in rows.items()} == {
        student: sum(points.values()) for student, points in (WORKED | dict.fromkeys(BROKEN, NOTHING)).items()
    }
    assert {float(row["max_score"]) for row in rows.values()} == {10}
    require_single_rows(classes.nbgraders)
    assert not (classes.nbgraders / ".kicourse" / "progress.jsonl").exists()


@pytest.mark.long
@pytest.mark.parametrize("student", BROKEN)
def test_what_cannot_be_read_gets_a_mark_and_a_file(classes: Classes, student: str) -> None:
    assert marks(classes.nbgraders)[student] == NOTHING
    graded = classes.nbgraders / "autograded" / student / UNIT / f"{UNIT}.ipynb"
    cells = nbformat.read(graded, 4).cells
    results = [cell.outputs for cell in cells if cell.metadata.get("nbgrader", {}).get("grade")]
    assert len(results) == len(POINTS)
    for (result,) in results:
        assert result["data"]["text/plain"] == "0"
    reason = {result["data"]["text/html"] for (result,) in results}
    assert len(reason) == 1, "the same reason in every check's cell"
    page = (classes.nbgraders / "feedback" / student / UNIT / f"{UNIT}.html").read_text(encoding="utf-8")
    assert "0.0 / 10.0" in " ".join(page.split())


def test_nbgrader_and_kicourse_do_not_grade_at_once(room: Path) -> None:
    hand_in(room, "ada")
    command = [str(Path(sys.executable).with_name("nbgrader")), "autograde", UNIT, "--force"]
    with FileLock(open_class(room).lock):
        done = subprocess.run(
            command, cwd=room, env=environment(), capture_output=True, text=True, check=False, timeout=DEADLINE
        )
    assert done.returncode == 1
    assert f"{room} is being graded now, by another command. Wait until it is done." in done.stderr
    assert "Traceback" not in done.stderr
    assert marks(room) == {}
    assert not (room / "autograded").exists()


@pytest.mark.long
def test_what_nbgrader_has_written_is_left_alone(room: Path) -> None:
    """A mark that a person has settled is not opened again, and the page is made anew."""
    hand_in(room, "ada", {"cost": solved()["cost"]})
    (room / "submitted" / "linked").symlink_to(room / "submitted" / "ada")
    grade(room)
    page = room / "feedback" / "ada" / UNIT / f"{UNIT}.html"
    with gradebook_of(room) as gradebook:
        gradebook.find_grade("cost-check", UNIT, UNIT, "ada").manual_score = 1.5
        gradebook.db.commit()
    nbgrader(room, "autograde", UNIT, "--force")
    assert "1.5 / 10.0" not in " ".join(page.read_text(encoding="utf-8").split())
    with gradebook_of(room) as gradebook:
        assert [one.student.id for one in gradebook.assignment_submissions(UNIT)] == ["ada"], "links are no students"
        settled = gradebook.find_grade("cost-check", UNIT, UNIT, "ada")
        assert settled.needs_manual_grade, "nbgrader asks for another look"
        settled.needs_manual_grade = False
        gradebook.db.commit()
    for _ in range(2):
        assert "1 graded before and unchanged" in grade(room)
        assert "1.5 / 10.0" in " ".join(page.read_text(encoding="utf-8").split())
        with gradebook_of(room) as gradebook:
            assert not gradebook.find_grade("cost-check", UNIT, UNIT, "ada").needs_manual_grade


@pytest.mark.long
def test_both_take_every_configuration_of_nbgraders(room: Path) -> None:
    """One in JSON in the folder has the last word, for nbgrader and for kicourse."""
    (hand_in(room, "ada", {"cost": solved()["cost"]}).parent / "timestamp.txt").write_text(STAMP)
    (room / "nbgrader_config.json").write_text('{"LateSubmissionPlugin": {"penalty_method": "zero"}}')
    with gradebook_of(room) as gradebook:
        gradebook.update_or_create_assignment(UNIT, duedate="2026-02-01 10:00:00 UTC")
    grade(room)
    assert totals(room) == {"ada": 2.5}
    for command in (lambda: grade(room, "--force"), lambda: nbgrader(room, "autograde", UNIT, "--force")):
        command()
        with gradebook_of(room) as gradebook:
            submission = gradebook.find_submission(UNIT, "ada")
            assert (submission.score, submission.late_submission_penalty) == (2.5, 2.5)


@pytest.mark.parametrize("name", ["what?", "KI [WS26]", "moved%20here", "all*"])
def test_a_path_that_nbgrader_takes_for_something_else_is_refused(tmp_path: Path, room: Path, name: str) -> None:
    with pytest.raises(UsageError, match="Choose another name"):
        class_folder.new(tmp_path / name / "class", "en", [UNIT])
    assert [path.name for path in tmp_path.iterdir()] == ["class"]
    room.rename(tmp_path / name)
    assert "Choose another name" in grade(tmp_path / name, status=2)


@pytest.mark.long
def test_nothing_beside_the_notebook_is_copied(classes: Classes) -> None:
    for kind in ("autograded", "feedback"):
        for folder in (classes.nbgraders, classes.kicourses):
            names = {path.name for path in (folder / kind / "surrounded" / UNIT).iterdir()}
            assert names <= {f"{UNIT}.ipynb", f"{UNIT}.html", "timestamp.txt"}, (kind, folder)
            for path in (folder / kind).rglob("*"):
                assert not path.is_symlink()
                assert path.is_dir() or SECRET not in path.read_text(encoding="utf-8", errors="replace")


@pytest.mark.long
def test_feedback_says_why(classes: Classes) -> None:
    page = (classes.nbgraders / "feedback" / "eve" / UNIT / f"{UNIT}.html").read_text(encoding="utf-8")
    assert "Your code raised ValueError" in page, "the verdict itself is what a student reads"


@pytest.mark.long
def test_a_notebooks_time_of_submission_is_kept(classes: Classes) -> None:
    for folder in (classes.nbgraders, classes.kicourses):
        stamps = {path.parent.parent.name: path.read_text() for path in (folder / "autograded").rglob("timestamp.txt")}
        assert stamps == {"ada": STAMP, "nothing": STAMP}


@pytest.mark.long
def test_nbgrader_and_kicourse_write_equal_notebooks(classes: Classes) -> None:
    for student in (*WORKED, *BROKEN):
        one, other = (
            nbformat.read(folder / "autograded" / student / UNIT / f"{UNIT}.ipynb", 4)
            for folder in (classes.nbgraders, classes.kicourses)
        )
        for left, right in zip(one.cells, other.cells, strict=True):
            assert left == right, student
        assert one == other, student


@pytest.mark.long
def test_nbgrader_and_kicourse_write_equal_pages(classes: Classes) -> None:
    for student in (*WORKED, *BROKEN):
        one, other = (
            (folder / "feedback" / student / UNIT / f"{UNIT}.html").read_text(encoding="utf-8")
            for folder in (classes.nbgraders, classes.kicourses)
        )
        assert one == other, student
        assert (BLANK in one) == (student == "bob"), "a long cell is shown without colours"


@pytest.mark.long
def test_nbgrader_and_kicourse_write_equal_gradebooks(classes: Classes) -> None:
    from tests.grading.stock import dump  # which needs this module's helpers

    assert totals(classes.nbgraders) == totals(classes.kicourses)
    one, other = (dump(folder / "gradebook.db") for folder in (classes.nbgraders, classes.kicourses))
    assert one.keys() == other.keys()
    for table in one:
        assert one[table] == other[table], table


def test_the_release_holds_stubs_and_the_source_solutions(room: Path) -> None:
    released = (room / "release" / UNIT / f"{UNIT}.ipynb").read_text()
    assert "raise NotImplementedError()" in released
    assert "details.cached_tokens or 0" not in released
    assert "details.cached_tokens or 0" in (room / "source" / UNIT / f"{UNIT}.ipynb").read_text()


def test_the_folder_remembers_language_and_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    solution = write(tmp_path / "maintenance.ipynb", unit(SOLUTION))
    monkeypatch.setattr("kicourse.syllabus.Unit.solution", lambda _unit, _language: solution)
    folder = class_folder.new(tmp_path / "class", "de", ["maintenance"])
    assert (folder / ".kicourse" / "language").read_text() == "de\n"
    capsys.readouterr()
    class_folder.prepare(folder)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(kicourse, "__version__", "99.0")
    class_folder.prepare(folder)
    assert "kicourse 99.0" not in (warning := capsys.readouterr().err)
    assert "99.0 is installed" in warning
    assert "pip install kicourse==" in warning


def test_a_folder_in_use_is_left_alone(room: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a class folder already"):
        class_folder.new(room, "en", [UNIT])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(UsageError, match="is not empty"):
        class_folder.new(tmp_path / "mine", "en", [UNIT])
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_names_that_do_not_exist_are_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownUnitError, match="Did you mean 'maintenance'"):
        class_folder.new(tmp_path / "class", "en", ["maintenence"])
    with pytest.raises(UnknownUnitError, match="There are: en, de"):
        class_folder.new(tmp_path / "class", "fr", ["maintenance"])
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = unit(SOLUTION)
    broken.cells[1].source = "### BEGIN SOLUTION\nwithout an end"
    solution = write(tmp_path / "maintenance.ipynb", broken)
    monkeypatch.setattr("kicourse.syllabus.Unit.solution", lambda _unit, _language: solution)
    with pytest.raises(UserError, match="RuntimeError: no end solution statement"):
        class_folder.new(tmp_path / "class", "en", ["maintenance"])
    assert [path.name for path in tmp_path.iterdir()] == ["maintenance.ipynb"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        class_folder.new(tmp_path / "file" / "class", "en", ["maintenance"])


@dataclass(frozen=True)
class Formgrader:
    """A Jupyter server in a class folder."""

    address: str
    pid: int


@pytest.fixture
def formgrader(room: Path) -> Iterator[Formgrader]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("jupyter-server")), "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--IdentityProvider.token=secret", "--ServerApp.port_retries=0"]
    settings = environment(JUPYTER_RUNTIME_DIR=str(room.parent / "runtime"), PATH="/usr/bin:/bin")
    server = subprocess.Popen(command, cwd=room, env=settings, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/formgrader"
    try:
        wait_until_answering(f"{address}/api/assignments", server)
        yield Formgrader(address, server.pid)
    finally:
        server.terminate()
        server.wait(20)


def wait_until_answering(address: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            ask(address)
            return
        except URLError:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.2)


def read(address: str, method: str = "GET") -> str:
    with urlopen(Request(address, method=method, headers={"Authorization": "token secret"}), timeout=300) as answer:
        return str(answer.read().decode())


def ask(address: str, method: str = "GET") -> Any:
    return json.loads(read(address, method))


def test_the_formgrader_grades_at_the_press_of_its_button(room: Path, formgrader: Formgrader) -> None:
    address = formgrader.address
    long = "first = 1" + " \n" * 100_000 + "last = '<script>'"  # which would take hours to colour
    hand_in(room, "cy", {"ask": solved()["ask"], "cost": solved()["cost"]}, [("ask", long)])
    assert [assignment["name"] for assignment in ask(f"{address}/api/assignments")] == [UNIT]
    pressed = ask(f"{address}/api/submission/{UNIT}/cy/autograde", "POST")
    assert pressed["success"], pressed
    (submission,) = ask(f"{address}/api/submissions/{UNIT}")
    assert (submission["score"], submission["max_score"]) == (4.5, 10)
    assert not left_of(formgrader.pid), "the clerk and its workers end with the press"
    (notebook,) = ask(f"{address}/api/submitted_notebooks/{UNIT}/{UNIT}")
    page = read(f"{address}/submissions/{notebook['id']}/?index=0")
    assert f"{escape(long, quote=False)}</pre>" in page, "its own view shows a long cell without colours"
    assert '<span class="k">def</span>' in page, "and the others with them"


def left_of(pid: int) -> set[str]:
    """Return what still works for the grader below this process, after a moment."""
    deadline = time.monotonic() + 10
    while (left := _graders(descendants(pid))) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _graders(below: list[psutil.Process]) -> set[str]:
    found = set()
    for process in below:
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "kicourse" in command:
            found.add(command)
    return found
