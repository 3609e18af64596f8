import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import nbformat
import pytest

import kicourse
from kicourse.errors import UsageError, UserError
from kicourse.grading import class_folder
from kicourse.syllabus import UnknownUnitError
from tests.grading.notebooks import HALF, SOLVED, unit, write

SOLUTION = {
    "double": "def double(x):\n"
    "    ### BEGIN SOLUTION\n"
    "    return [2 * y for y in x] if isinstance(x, list) else 2 * x\n"
    "    ### END SOLUTION",
    "shout": "def shout(x):\n    ### BEGIN SOLUTION\n    return x.upper()\n    ### END SOLUTION",
}


@pytest.fixture(scope="module")
def pristine_class(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class folder whose one assignment is the toy unit, made once."""
    place = tmp_path_factory.mktemp("pristine")
    solution = write(place / "maintenance.ipynb", unit(SOLUTION))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kicourse.syllabus.Unit.solution", lambda _unit, _language: solution)
        return class_folder.new(place / "class", "en", ["maintenance"])


@pytest.fixture
def class_of_toys(pristine_class: Path, tmp_path: Path) -> Path:
    """A class folder to work in; that it works after a move is a part of what is tested."""
    return Path(shutil.copytree(pristine_class, tmp_path / "class"))


def submit(folder: Path, student: str, answers: dict[str, str], without: str = "") -> None:
    """Hand in the released notebook with some of its stubs filled in, and perhaps a cell deleted."""
    notebook = nbformat.read(folder / "release" / "maintenance" / "maintenance.ipynb", 4)
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = answers.get(name, cell.source)
    notebook.cells = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") != without]
    write(folder / "submitted" / student / "maintenance" / "maintenance.ipynb", notebook)


def nbgrader(folder: Path, *arguments: str) -> None:
    """Run stock nbgrader in a class folder, as from a shell in which nothing is activated."""
    command = [str(Path(sys.executable).with_name("nbgrader")), *arguments]
    environment = os.environ | {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_stock_nbgrader_gives_the_right_marks(class_of_toys: Path) -> None:
    folder = class_of_toys
    submit(folder, "ada", SOLVED)
    submit(folder, "bob", {})
    submit(folder, "cy", HALF)
    submit(folder, "dan", SOLVED, without="double-check")
    submit(folder, "eve", SOLVED | {"double": "def double(x):\n    raise ValueError(x)"})
    nbgrader(folder, "autograde", "maintenance")
    nbgrader(folder, "generate_feedback", "maintenance")
    nbgrader(folder, "export", "--to=grades.csv")
    with (folder / "grades.csv").open() as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    assert {student: float(row["score"]) for student, row in rows.items()} == {
        "ada": 10,
        "bob": 0,
        "cy": 7.5,
        "dan": 10,
        "eve": 2.5,
    }
    assert {float(row["max_score"]) for row in rows.values()} == {10}
    feedback = (folder / "feedback" / "cy" / "maintenance" / "maintenance.html").read_text()
    assert "not each item is doubled" in feedback, "the verdict itself is what a student reads"
    assert not (folder / ".kicourse" / "progress.jsonl").exists()


def test_the_release_holds_stubs_and_the_source_solutions(class_of_toys: Path) -> None:
    released = (class_of_toys / "release" / "maintenance" / "maintenance.ipynb").read_text()
    assert "raise NotImplementedError()" in released
    assert "upper" not in released
    assert "upper" in (class_of_toys / "source" / "maintenance" / "maintenance.ipynb").read_text()


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


def test_a_folder_in_use_is_left_alone(class_of_toys: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a class folder already"):
        class_folder.new(class_of_toys, "en", ["maintenance"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(UsageError, match="is not empty"):
        class_folder.new(tmp_path / "mine", "en", ["maintenance"])
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


@pytest.fixture
def formgrader(class_of_toys: Path) -> Iterator[str]:
    """A Jupyter server in the class folder; yields the address of its formgrader."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("jupyter-server")), "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--IdentityProvider.token=secret", "--ServerApp.port_retries=0"]
    environment = os.environ | {"JUPYTER_RUNTIME_DIR": str(class_of_toys.parent / "runtime"), "PATH": "/usr/bin:/bin"}
    server = subprocess.Popen(command, cwd=class_of_toys, env=environment, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/formgrader"
    try:
        wait_until_answering(f"{address}/api/assignments", server)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def wait_until_answering(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            ask(address)
            return
        except URLError:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.2)


def ask(address: str, method: str = "GET") -> Any:
    with urlopen(Request(address, method=method, headers={"Authorization": "token secret"}), timeout=120) as answer:
        return json.load(answer)


def test_the_formgrader_grades_at_the_press_of_its_button(class_of_toys: Path, formgrader: str) -> None:
    submit(class_of_toys, "cy", HALF)
    assert [assignment["name"] for assignment in ask(f"{formgrader}/api/assignments")] == ["maintenance"]
    pressed = ask(f"{formgrader}/api/submission/maintenance/cy/autograde", "POST")
    assert pressed["success"], pressed
    (submission,) = ask(f"{formgrader}/api/submissions/maintenance")
    assert (submission["score"], submission["max_score"]) == (7.5, 10)
