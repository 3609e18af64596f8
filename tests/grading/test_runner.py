"""`kicourse check`: notebooks are rebuilt and judged as in a class. A run starts slowly, so many share one."""

import io
import json
import os
import re
import signal
import subprocess
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest

from kicourse import checks
from kicourse.errors import UsageError
from kicourse.grading import opening, processes, runner, sandbox
from kicourse.grading.opening import OpenNotebook
from kicourse.language import VARIABLE
from tests.grading.class_room import BIN, DEADLINE, POINTS, UNIT, environment, solved
from tests.grading.notebooks import exercise, write

SECONDS = 5.0
"""What a cell of the notebooks called hurried may take."""
DEMONSTRATED = "demonstrated = 'stages' in globals() or 'reply' in globals()"
"""Looks for names that only demonstrations define."""
STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    try:\n        time.sleep(60)\n"
)
STUBBORN += "    except BaseException: pass"

LIKE_FRESH = """def cost(usage, prices):
    total = usage.prompt_tokens * prices["input"] + usage.completion_tokens * prices["output"]
    return (total / 1_000_000).quantize(Decimal("0.0001"), rounding=ROUND_HALF_UP)"""
"""A cost that charges cached tokens like fresh ones: one criterion of five fails."""

TERMINAL = """def cost(usage, prices):
    raise ValueError("\\x1b]52;c;ZXZpbA==\\x07\\x1b[2J\\x1b]0;mine\\x07 all mine")"""
"""Would write into the clipboard, clear the screen and name the window."""

OLD: dict[str, Any] = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": []}
ANONYMOUS: dict[str, Any] = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}
STRANGER = ANONYMOUS | {"metadata": {"kicourse": {"unit": "mini_gtp", "lang": "en"}}}
BAD = {
    "empty": ("", "empty"),
    "broken": ('{"cells": [', "not JSON"),
    "conflict": ('{\n<<<<<<< HEAD\n"cells": []', "line 2 is a merge conflict"),
    "json": ("[1, 2]", "not a notebook"),
    "old": (json.dumps(OLD), "jupyter nbconvert --to notebook --inplace"),
    "new": (json.dumps(ANONYMOUS | {"nbformat": 9}), "format 9"),
    "damaged": (json.dumps(ANONYMOUS | {"cells": [{"source": 3}]}), "damaged"),
    "anonymous": (json.dumps(ANONYMOUS), "which unit it is"),
    "stranger": (json.dumps(STRANGER), "Did you mean 'mini_gpt'?"),
}


def notebooks() -> dict[str, Any]:
    """Every notebook of the run that the tests look at, by the name of its file."""
    own = [("setup", "1 / 0"), ("setup", "open('was_here', 'w').close()"), ("setup", "import nowhere")]
    own += [("ask", DEMONSTRATED)]
    right = "check.cost(lambda usage, prices: 0)"
    return {
        "untouched": exercise(),
        "wrong": exercise(solved() | {"cost": LIKE_FRESH}),
        "errors": exercise(solved() | {"stream": "assert not demonstrated\n" + solved()["stream"]}, own),
        "german": exercise({"cost": LIKE_FRESH}, language="de"),
        "syntax": exercise(solved() | {"cost": "def cost(usage, prices"}),
        "silent": exercise(solved() | {"cost": "", "ask": "ask"}),
        "raised": exercise(solved() | {"cost": "# mine\nraise ValueError('lost my head')"}),
        "terminal": exercise(solved() | {"cost": TERMINAL}),
        "outside": exercise(solved() | {"cost": "# YOUR CODE HERE\nraise NotImplementedError()"}),
        "deleted": exercise(solved(), without=("cost-check", "setup")),
        "elsewhere": exercise({}, [("cost", solved()["cost"]), ("cost", "check.cost(cost)"), ("ask-check", right)]),
        "dying": exercise(solved() | {"cost": "import os; os._exit(3)"}),
        "dying_twice": exercise(solved() | {"cost": "import os; os._exit(3)", "stream": "import os; os._exit(3)"}),
        "hurried": exercise(solved() | {"cost": "while True: pass"}),
        "hurried_stubborn": exercise(solved() | {"cost": STUBBORN}),
        "fine": exercise(solved()),
    }


@dataclass(frozen=True)
class Ran:
    """What one run of `kicourse check` left behind."""

    folder: Path
    status: int
    shown: str
    results: dict[str, dict[str, Any]]
    suites: dict[str, ElementTree.Element]
    before: dict[str, bytes]

    def statuses(self, name: str) -> dict[str, str]:
        return {task["task"]: task["status"] for task in self.results[name]["tasks"]}

    def task(self, name: str, task: str) -> dict[str, Any]:
        return next(one for one in self.results[name]["tasks"] if one["task"] == task)

    def reason(self, name: str, task: str) -> str:
        """Why there is no verdict: what each criterion says then."""
        (message,) = {criterion["message"] for criterion in self.task(name, task)["criteria"]}
        return str(message)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("checked")
    (folder / ".kicourse").mkdir()
    (folder / ".kicourse" / "workspace.json").write_text("{}")
    paths = [write(folder / f"{name}.ipynb", notebook) for name, notebook in notebooks().items()]
    for name, (content, _) in BAD.items():
        paths.append(folder / f"{name}.ipynb")
        paths[-1].write_text(content)
    return checked(paths)


def checked(paths: list[Path]) -> Ran:
    """Check notebooks that lie in one folder."""
    folder = paths[0].parent
    before = files(folder)
    results, junit = folder.parent / "results.json", folder.parent / "junit.xml"
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(shown):
        patch.setattr(runner, "open_notebook", hurried)
        for name in [name for name in os.environ if name.startswith("OPENAI_")]:
            patch.delenv(name)
        status = runner.check_notebooks(paths, results, junit)
    reports = json.loads(results.read_text(encoding="utf-8"))
    suites = ElementTree.parse(junit).getroot()
    return Ran(
        folder,
        status,
        shown.getvalue(),
        {Path(report["notebook"]).stem: report for report in reports},
        {Path(suite.get("name", "")).stem: suite for suite in suites},
        before,
    )


def hurried(path: Path) -> OpenNotebook:
    opened = opening.open_notebook(path)
    if not path.stem.startswith("hurried"):
        return opened
    return replace(opened, unit=replace(opened.unit, limits=replace(opened.unit.limits, seconds=SECONDS)))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


ALL_BUT_COST = dict.fromkeys(POINTS, "passed")


def test_a_solved_notebook_gets_full_marks_and_exit_0(tmp_path: Path) -> None:
    notebook = write(tmp_path / "solved.ipynb", exercise(solved()))
    before = notebook.read_bytes()
    done = subprocess.run(
        [str(BIN / "kicourse"), "check", str(notebook)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2.5/2.5" in done.stdout
    assert "10 of 10 points" in done.stdout
    assert "\x1b" not in done.stdout, "no colours where there is no terminal"
    assert not done.stderr
    assert files(tmp_path) == {"solved.ipynb": before}, "the learner's file stays as it is"


def test_one_notebook_without_full_marks_fails_the_run(ran: Ran) -> None:
    assert ran.status == 1
    assert ran.results["fine"]["score"] == 10
    assert "\x1b" not in ran.shown
    assert len(ran.results) == len(notebooks()) + len(BAD)
    assert f"{ran.folder / 'fine.ipynb'}: 10 of 10 points" in ran.shown
    assert f"{ran.folder / 'wrong.ipynb'}: 9.5 of 10 points" in ran.shown


def in_process(language: str) -> Any:
    """The verdict that a learner sees on the wrong cost, in the notebook."""
    namespace: dict[str, Any] = {}
    exec("from decimal import ROUND_HALF_UP, Decimal\n" + LIKE_FRESH, namespace)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, language)
        return checks.load(UNIT)["cost"].run(namespace["cost"])


def test_json_and_junit_say_the_same_as_the_verdicts(ran: Ran) -> None:
    verdict = in_process("en")
    passed = {
        task: {
            "task": task,
            "points": points,
            "max_points": points,
            "status": "passed",
            "criteria": [
                {"name": criterion.name, "status": "passed", "message": ""}
                for criterion in checks.load(UNIT)[task].criteria
            ],
        }
        for task, points in POINTS.items()
    }
    partial = {
        "task": "cost",
        "points": 2,
        "max_points": 2.5,
        "status": "partial",
        "criteria": [
            {"name": result.name, "status": result.status, "message": result.message} for result in verdict.criteria
        ],
    }
    assert {result.status for result in verdict.criteria} == {"passed", "failed"}
    assert ran.results["wrong"] == {
        "notebook": str(ran.folder / "wrong.ipynb"),
        "unit": UNIT,
        "score": 9.5,
        "max_score": 10,
        "tasks": list((passed | {"cost": partial}).values()),
    }
    assert set(ran.statuses("untouched").values()) == {"not_started"}
    counts = [
        [ran.suites[name].get(count) for count in ("tests", "failures", "errors")] for name in ("wrong", "untouched")
    ]
    assert counts == [["4", "1", "0"], ["4", "4", "0"]]
    failure = ran.suites["wrong"].find("testcase[@name='cost']/failure")
    assert failure is not None
    assert failure.get("message") == "partial: 2 of 2.5 points"
    for result in verdict.criteria:
        if result.status == "failed":
            assert f"{result.title}: {result.message}" in (failure.text or "")


def test_demonstrations_are_skipped_and_errors_stop_nothing(ran: Ran) -> None:
    assert ran.results["errors"]["score"] == 10, ran.results["errors"]


def test_nothing_is_written_beside_the_notebooks_and_no_progress_is_recorded(ran: Ran) -> None:
    assert files(ran.folder) == ran.before


def test_the_notebooks_language_reaches_the_messages(ran: Ran) -> None:
    german, english = in_process("de"), in_process("en")
    messages = [criterion["message"] for criterion in ran.task("german", "cost")["criteria"]]
    assert messages == [result.message for result in german.criteria]
    assert messages != [result.message for result in english.criteria]


def test_a_task_without_a_verdict_says_why(ran: Ran) -> None:
    assert ran.statuses("syntax") == ALL_BUT_COST | {"cost": "error"}
    assert "SyntaxError" in ran.reason("syntax", "cost")
    assert "line 1 of the cell" in ran.reason("syntax", "cost")
    assert ran.reason("silent", "cost") == "NameError: name 'cost' is not defined"
    assert ran.reason("raised", "cost") == "ValueError: lost my head"
    error = ran.suites["syntax"].find("testcase[@name='cost']/error")
    assert error is not None
    assert "SyntaxError" in (error.text or "")


def test_a_message_commands_no_terminal(ran: Ran) -> None:
    (message,) = {
        criterion["message"] for criterion in ran.task("terminal", "cost")["criteria"] if criterion["message"]
    }
    assert "all mine" in message
    assert r"\x1b]52;c;ZXZpbA==" in message.replace("\n", ""), "what cannot be seen is spelled out"
    assert r"\x1b]52;c;" in ran.shown
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", message + ran.shown)


def test_a_stub_outside_of_a_function_is_not_started(ran: Ran) -> None:
    assert ran.statuses("outside") == ALL_BUT_COST | {"cost": "not_started"}


def test_a_deleted_cell_comes_back(ran: Ran) -> None:
    assert ran.results["deleted"]["score"] == 10


def test_a_verdict_outside_of_its_check_cell_counts_for_nothing(ran: Ran) -> None:
    """The own cell defines a right `cost`; the check's own cell then meets it, which is what a learner sees too."""
    assert ran.statuses("elsewhere")["cost"] == "passed"
    assert ran.statuses("elsewhere")["ask"] == "not_started"


def test_a_process_that_dies_costs_its_own_task_only(ran: Ran) -> None:
    assert ran.statuses("dying") == ALL_BUT_COST | {"cost": "error"}
    assert "ended, or broke off, in this cell" in ran.reason("dying", "cost")


def test_a_notebook_that_dies_twice_loses_two_tasks(ran: Ran) -> None:
    expected = {"ask": "passed", "cost": "error", "stream": "error", "conversation": "passed"}
    assert ran.statuses("dying_twice") == expected
    assert "ended, or broke off" in ran.reason("dying_twice", "stream")


@pytest.mark.parametrize("name", ["hurried", "hurried_stubborn"])
def test_a_cell_over_its_time_costs_its_own_task_only(ran: Ran, name: str) -> None:
    assert ran.statuses(name) == ALL_BUT_COST | {"cost": "error"}
    assert "The cell took longer than" in ran.reason(name, "cost")


WITHOUT_FORKS = """import os, resource, select, socket
for module, names in (
    (os, ("fork", "forkpty", "setsid", "killpg")),
    (select, ("poll", "epoll")),
    (socket, ("send_fds", "recv_fds")),
    (resource, ("getrlimit", "setrlimit")),
):
    for name in names:
        delattr(module, name)
"""
"""Takes from each process what Windows lacks, before it runs anything else (https://docs.python.org/3/library/site.html)."""


def test_where_no_process_can_fork_the_marks_are_the_same(ran: Ran, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_FORKS)
    results = tmp_path / "results.json"
    names = ("fine", "wrong", "dying_twice", "raised", "silent")
    paths = [str(ran.folder / f"{name}.ipynb") for name in names]
    command = [str(BIN / "kicourse"), "check", *paths, "--json", str(results)]
    surroundings = environment(PYTHONPATH=str(tmp_path))
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert done.returncode == 1, done.stdout + done.stderr
    assert not done.stderr
    assert json.loads(results.read_text(encoding="utf-8")) == [ran.results[name] for name in names]


def test_where_no_process_can_fork_time_is_limited_too(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "can_fork", lambda: False)
    monkeypatch.setattr(sandbox, "unavailable", lambda: "no forks")
    apart = write(tmp_path / "apart" / "hurried_stubborn.ipynb", notebooks()["hurried_stubborn"])
    assert checked([apart]).statuses("hurried_stubborn") == ran.statuses("hurried_stubborn")


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_and_keeps_no_other_notebook_from_running(ran: Ran, name: str) -> None:
    report = ran.results[name]
    assert BAD[name][1] in report["error"]
    assert (report["score"], report["tasks"]) == (0, [])
    assert BAD[name][1] in ran.shown
    assert ran.suites[name].get("errors") == "1"


def test_wrong_usage_is_told_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "run", lambda _paths: pytest.fail("it ran"))
    notebook = write(tmp_path / "a.ipynb", exercise(solved()))
    with pytest.raises(UsageError, match="There is no file"):
        runner.check_notebooks([notebook, tmp_path / "b.ipynb"])
    with pytest.raises(UsageError, match="is a folder"):
        runner.check_notebooks([tmp_path])
    with pytest.raises(UsageError, match="its folder does not exist"):
        runner.check_notebooks([notebook], tmp_path / "nowhere" / "results.json")
    with pytest.raises(UsageError, match="its folder does not exist"):
        runner.check_notebooks([notebook], junit=tmp_path / "nowhere" / "junit.xml")
    with pytest.raises(UsageError, match="is no file of results"):
        runner.check_notebooks([notebook], notebook)


@pytest.mark.long
def test_an_interrupt_leaves_no_process_and_no_file_behind(tmp_path: Path) -> None:
    forever = exercise({"ask": "open('started', 'w').close()\nwhile True: pass"})
    notebooks = [write(tmp_path / name / "a.ipynb", forever) for name in "abc"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    running = subprocess.Popen(
        [str(BIN / "kicourse"), "check", *map(str, notebooks)], env=environment(TMPDIR=str(scratch))
    )
    try:
        wait_for_both(scratch, running)
        assert processes_of(scratch)
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130
    finally:
        running.kill()
    assert not gone_soon(scratch)
    assert not [path.name for path in scratch.iterdir() if path.name.startswith("kicourse")]


def wait_for_both(scratch: Path, running: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while len(list(scratch.rglob("started"))) < 2:
        assert running.poll() is None
        assert time.monotonic() < deadline, "the notebooks were never started"
        time.sleep(0.1)


def gone_soon(scratch: Path) -> list[psutil.Process]:
    """Return which processes are left after a moment: one that is being killed takes that long."""
    deadline = time.monotonic() + 5
    while (left := processes_of(scratch)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def processes_of(scratch: Path) -> list[psutil.Process]:
    """The processes whose temporary folder is this one, or lies in it."""
    found = []
    for process in psutil.process_iter():
        try:
            inside = process.environ().get("TMPDIR", "").startswith(str(scratch))
            if inside and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
