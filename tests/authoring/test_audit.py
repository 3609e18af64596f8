"""The audit: it finds the holes of a check, and ends whatever a wrong solution does."""

import json
import os
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from kicourse.authoring import audit, forks
from kicourse.authoring.results import Survivor, TaskResult
from kicourse.errors import UsageError, UserError

from .conftest import Desk

STRONG = """
@largest.criterion(_("the largest ones"))
def values(trial: Trial, answer: Handle) -> None:
    trial.equal(answer([3.0, 1.0, 2.0], 2), [3.0, 2.0])
"""


def result(task: str) -> TaskResult:
    return next(result for result in audit.audit().tasks if result.task == task)


def test_a_weak_check_lets_wrong_solutions_pass(desk: Desk) -> None:
    largest = result("largest")
    assert {survivor.after for survivor in largest.survivors} == {
        "return sorted(values)[:count]",
        "return sorted(values, reverse=False)[:count]",
        "smallest",
    }
    assert largest.tried == largest.killed + 3
    assert "-    return sorted(values, reverse=True)[:count]" in largest.survivors[0].diff.splitlines()


def test_a_criterion_that_only_informs_kills_too(desk: Desk) -> None:
    desk.checks.write_text(desk.checks.read_text(encoding="utf-8") + STRONG, encoding="utf-8")
    assert result("largest").survivors == []


def test_a_strong_check_refuses_everything(desk: Desk) -> None:
    mean = result("mean")
    assert mean.survivors == []
    assert mean.killed == mean.tried > 10


def test_a_mark_covers_one_survivor_and_unused_marks_are_told(desk: Desk) -> None:
    line = "return sorted(values, reverse=True)[:count]"
    mark = f'largest.equivalent("{line}", "return sorted(values)[:count]", reason="the order is free")\n'
    unused = f'largest.equivalent("{line}", "return None", reason="nothing is something")\n'
    desk.checks.write_text(desk.checks.read_text(encoding="utf-8") + mark + unused, encoding="utf-8")
    largest = result("largest")
    assert [equivalent.rpartition(": ")[2] for equivalent in largest.equivalents] == ["the order is free"]
    assert {survivor.after for survivor in largest.survivors} == {
        "return sorted(values, reverse=False)[:count]",
        "smallest",
    }
    assert largest.unused == [f"{line} -> return None"]


def test_a_reference_that_fails_its_own_check_is_named(desk: Desk) -> None:
    desk.replace(desk.source, "return total / len(values)", "return total")
    with pytest.raises(UserError, match=r"averages\.py:28: the reference solution of 'mean' fails .*: many\.$"):
        audit.audit()


def test_a_cell_that_fails_is_named(desk: Desk) -> None:
    desk.replace(desk.source, "import math\n", "import math\n1 / 0\n")
    with pytest.raises(UserError, match=r"averages\.py:21: this cell of the solution raises ZeroDivisionError"):
        audit.audit()


def test_demonstrations_are_not_played(desk: Desk) -> None:
    desk.replace(desk.source, "pressure = [1.0, 2.0]\n", "pressure = [1.0, 2.0]\nraise SystemExit\n")
    assert audit.audit().tasks


def test_the_command_reports_and_says_whether_all_is_well(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "audit.json"
    assert audit.run(["averages"], file) == 1
    assert "+    return sorted(values)[:count]" in capsys.readouterr().out
    tasks = json.loads(file.read_text(encoding="utf-8"))
    assert [(task["unit"], task["task"], len(task["survivors"])) for task in tasks] == [
        ("averages", "mean", 0),
        ("averages", "largest", 3),
    ]
    assert Survivor(**tasks[1]["survivors"][0]).before == "return sorted(values, reverse=True)[:count]"


def test_a_report_that_cannot_be_written_is_refused_before_the_work(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Make the folder"):
        audit.run(["averages"], tmp_path / "missing" / "audit.json")


def test_a_fork_that_hangs_ends_with_everything_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def hang() -> None:
        note.write_text(str(subprocess.Popen(["sleep", "60"]).pid))
        time.sleep(60)

    start = time.monotonic()
    assert dict(forks.run([hang, lambda: 1], seconds=1)) == {0: None, 1: 1}
    assert time.monotonic() - start < 10
    assert is_over(int(note.read_text()))


def is_over(pid: int) -> bool:
    """Whether a process ends within a few seconds; nobody may be there to collect it."""
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_forks_that_die_or_raise_say_nothing() -> None:
    def die() -> None:
        os._exit(0)

    def fail() -> None:
        raise RuntimeError

    assert dict(forks.run([die, fail, lambda: {"a": 1}], seconds=20)) == {0: None, 1: None, 2: {"a": 1}}


def test_a_fork_is_not_kept_open_by_what_it_started() -> None:
    def start() -> str:
        subprocess.Popen(["sleep", "60"], close_fds=False)
        return "done"

    start_time = time.monotonic()
    assert dict(forks.run([start], seconds=30)) == {0: "done"}
    assert time.monotonic() - start_time < 10
