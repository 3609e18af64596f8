import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from kicourse.errors import UsageError
from kicourse.grading import runner
from kicourse.grading.execution import execute
from kicourse.grading.opening import open_notebook
from kicourse.grading.reading import report_of
from kicourse.grading.report import NotebookReport
from kicourse.syllabus import Limits
from tests.grading.notebooks import HALF, SOLVED, UNTOUCHED, code, unit, write

KICOURSE = Path(sys.executable).with_name("kicourse")

pytestmark = pytest.mark.usefixtures("toy_unit")


def run_one(path: Path) -> NotebookReport:
    return runner.run([path])[0]


def statuses(report: NotebookReport) -> dict[str, str]:
    return {task.task: task.status for task in report.tasks}


def test_a_solved_notebook_gets_full_marks_and_exit_0(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    notebook = write(tmp_path / "solved.ipynb", unit(SOLVED))
    before = notebook.read_bytes()
    assert runner.check_notebooks([notebook]) == 0
    shown = capfd.readouterr().out
    assert "7.5/7.5" in shown
    assert "10 of 10 points" in shown
    assert "\x1b" not in shown, "no colours where there is no terminal"
    assert notebook.read_bytes() == before, "the learner's file stays as it is"


def test_json_and_junit_say_the_same_as_the_verdicts(tmp_path: Path) -> None:
    half = write(tmp_path / "half.ipynb", unit(HALF))
    untouched = write(tmp_path / "untouched.ipynb", unit(UNTOUCHED))
    results, junit = tmp_path / "results.json", tmp_path / "junit.xml"
    assert runner.check_notebooks([half, untouched], results, junit) == 1
    assert json.loads(results.read_text())[0] == {
        "notebook": str(half),
        "unit": "maintenance",
        "score": 7.5,
        "max_score": 10,
        "tasks": [
            {
                "task": "double",
                "points": 5,
                "max_points": 7.5,
                "status": "partial",
                "criteria": [
                    {"name": "of_numbers", "status": "passed", "message": ""},
                    {"name": "of_lists", "status": "failed", "message": "not each item is doubled"},
                ],
            },
            {
                "task": "shout",
                "points": 2.5,
                "max_points": 2.5,
                "status": "passed",
                "criteria": [{"name": "shouts", "status": "passed", "message": ""}],
            },
        ],
    }
    assert {task["status"] for task in json.loads(results.read_text())[1]["tasks"]} == {"not_started"}
    suites = ElementTree.parse(junit).getroot()
    assert [(suite.get("tests"), suite.get("failures")) for suite in suites] == [("2", "1"), ("2", "2")]
    failure = suites[0].find("testcase[@name='double']/failure")
    assert failure is not None
    assert "not each item is doubled" in (failure.text or "")


def test_demonstrations_are_skipped_and_errors_stop_nothing(tmp_path: Path) -> None:
    more = [code("open('was_here', 'w')", "demo"), code("1 / 0"), code("open('ran', 'w')")]
    report = run_one(write(tmp_path / "a.ipynb", unit(SOLVED, *more)))
    assert report.has_full_marks
    assert (tmp_path / "ran").exists(), "cells run in the notebook's folder"
    assert not (tmp_path / "was_here").exists()


def test_the_language_and_no_progress_reach_the_kernel(tmp_path: Path) -> None:
    (tmp_path / ".kicourse").mkdir()
    (tmp_path / ".kicourse" / "workspace.json").write_text("{}")
    tell = code("import os; open('said', 'w').write(os.environ['KICOURSE_LANG'])")
    assert run_one(write(tmp_path / "a.ipynb", unit(SOLVED, tell, lang="de"))).has_full_marks
    assert (tmp_path / "said").read_text() == "de"
    assert not (tmp_path / ".kicourse" / "progress.jsonl").exists()


def test_a_task_without_a_verdict_says_why(tmp_path: Path) -> None:
    broken = SOLVED | {"double": "def double(x:"}
    report = run_one(write(tmp_path / "a.ipynb", unit(broken)))
    assert statuses(report) == {"double": "error", "shout": "passed"}
    assert "SyntaxError" in report.tasks[0].message
    assert "line 1 of the cell" in report.tasks[0].message


def test_a_stub_outside_of_a_function_is_not_started(tmp_path: Path) -> None:
    untouched = {"double": "# YOUR CODE HERE\nraise NotImplementedError()", "shout": SOLVED["shout"]}
    report = run_one(write(tmp_path / "a.ipynb", unit(untouched)))
    assert statuses(report) == {"double": "not_started", "shout": "passed"}


def test_a_deleted_check_cell_is_missed(tmp_path: Path) -> None:
    notebook = unit(SOLVED)
    del notebook.cells[2]
    report = run_one(write(tmp_path / "a.ipynb", notebook))
    assert statuses(report) == {"double": "error", "shout": "passed"}
    assert "`double-check`" in report.tasks[0].message


def test_a_verdict_outside_of_its_check_cell_counts_for_nothing(tmp_path: Path) -> None:
    notebook = unit(UNTOUCHED)
    notebook.cells.append(code("check.double(lambda x: [2 * y for y in x] if isinstance(x, list) else 2 * x)"))
    assert statuses(run_one(write(tmp_path / "a.ipynb", notebook)))["double"] == "not_started"


def run_with_two_seconds_a_cell(path: Path) -> NotebookReport:
    opened = open_notebook(path)
    hurried = replace(opened, unit=replace(opened.unit, limits=Limits(seconds=2)))
    seconds = asyncio.run(execute(hurried))
    return report_of(hurried, str(path), seconds)


def test_a_cell_over_its_time_is_interrupted_and_the_rest_runs(tmp_path: Path) -> None:
    slow = {"double": "while True: pass", "shout": SOLVED["shout"]}
    report = run_with_two_seconds_a_cell(write(tmp_path / "a.ipynb", unit(slow)))
    assert statuses(report) == {"double": "error", "shout": "passed"}
    assert report.tasks[0].message == "The cell took longer than 2 seconds."


def test_a_cell_that_cannot_be_interrupted_holds_nothing_up(tmp_path: Path) -> None:
    stubborn = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    notebook = write(tmp_path / "a.ipynb", unit({"double": stubborn, "shout": SOLVED["shout"]}))
    report = run_with_two_seconds_a_cell(notebook)
    assert statuses(report) == {"double": "error", "shout": "error"}
    assert report.tasks[0].message == "The cell took longer than 2 seconds."
    assert "not run" in report.tasks[1].message
    assert not kernels_in(tmp_path)


def test_a_kernel_that_dies_costs_its_own_notebook_only(tmp_path: Path) -> None:
    dying = write(tmp_path / "dying.ipynb", unit(SOLVED | {"double": "import os; os._exit(3)"}))
    fine = write(tmp_path / "fine.ipynb", unit(SOLVED))
    died, passed = runner.run([dying, fine])
    assert "died" in died.tasks[0].message
    assert passed.has_full_marks


def test_a_kernel_that_does_not_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ipykernel_launcher.py").write_text("raise SystemExit(1)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    report = run_one(write(tmp_path / "a.ipynb", unit(SOLVED)))
    assert "kernel does not start" in report.error
    assert "kicourse doctor" in report.error
    assert not report.has_full_marks


def bad_notebooks() -> dict[str, tuple[str, str]]:
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": []}
    anonymous = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}
    stranger = anonymous | {"metadata": {"kicourse": {"unit": "mini_gtp", "lang": "en"}}}
    return {
        "empty": ("", "empty"),
        "broken": ('{"cells": [', "not JSON"),
        "conflict": ('{\n<<<<<<< HEAD\n"cells": []', "line 2 is a merge conflict"),
        "json": ("[1, 2]", "not a notebook"),
        "old": (json.dumps(old), "jupyter nbconvert --to notebook --inplace"),
        "new": (json.dumps(anonymous | {"nbformat": 9}), "format 9"),
        "damaged": (json.dumps(anonymous | {"cells": [{"source": 3}]}), "damaged"),
        "anonymous": (json.dumps(anonymous), "which unit it is"),
        "stranger": (json.dumps(stranger), "Did you mean 'mini_gpt'?"),
    }


@pytest.mark.parametrize("name", bad_notebooks())
def test_bad_input_is_named_and_keeps_no_other_notebook_from_running(name: str, tmp_path: Path) -> None:
    content, expected = bad_notebooks()[name]
    bad, good = tmp_path / f"{name}.ipynb", write(tmp_path / "good.ipynb", unit(SOLVED))
    bad.write_text(content)
    results = tmp_path / "results.json"
    assert runner.check_notebooks([bad, good], results) == 1
    failed, passed = json.loads(results.read_text())
    assert expected in failed["error"]
    assert passed["score"] == 10


def test_wrong_usage_is_told_before_anything_runs(tmp_path: Path) -> None:
    notebook = write(tmp_path / "a.ipynb", unit(SOLVED))
    with pytest.raises(UsageError, match="There is no file"):
        runner.check_notebooks([notebook, tmp_path / "b.ipynb"])
    with pytest.raises(UsageError, match="is a folder"):
        runner.check_notebooks([tmp_path])
    with pytest.raises(UsageError, match="its folder does not exist"):
        runner.check_notebooks([notebook], tmp_path / "nowhere" / "results.json")


def test_an_interrupt_leaves_no_kernel_behind(tmp_path: Path) -> None:
    forever = unit({"double": "open('started', 'w')\nwhile True: pass"})
    notebooks = [write(tmp_path / name / "a.ipynb", forever) for name in "abc"]
    running = subprocess.Popen([KICOURSE, "check", *map(str, notebooks)])
    for folder in "ab":
        wait_for(tmp_path / folder / "started")
    assert len(kernels_in(tmp_path)) == 2
    running.send_signal(signal.SIGINT)
    assert running.wait(20) == 130
    assert not kernels_in(tmp_path)
    assert not (tmp_path / "c" / "started").exists()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.1)


def kernels_in(folder: Path) -> list[psutil.Process]:
    """The processes that work below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
