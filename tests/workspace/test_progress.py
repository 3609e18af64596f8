"""What the map and `kicourse status` say of a learner's checks."""

from pathlib import Path

import pytest
from rich.console import Console

from kicourse.checks import load
from kicourse.checks.record import journal, manifest, record
from kicourse.syllabus import course
from kicourse.workspace import progress, status
from kicourse.workspace.progress import UnitProgress

UNIT = "mini_gpt"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    manifest(tmp_path).parent.mkdir()
    manifest(tmp_path).write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KICOURSE_LANG", raising=False)
    return tmp_path


def say(task: str, points: float, kind: str = "check", state: str = "", unit: str = UNIT) -> None:
    most = load(unit)[task].points
    state = state or ("passed" if points == most else "partial" if points else "failed")
    verdict = {"unit": unit, "task": task, "points": points, "max_points": most, "status": state}
    record(verdict, kind=kind)  # type: ignore[arg-type]


def mini_gpt(workspace: Path) -> UnitProgress:
    return next(unit for unit in progress.read(workspace).units if unit.unit.slug == UNIT)


def status_of(workspace: Path, task: str) -> tuple[str, float]:
    share = next(share for share in mini_gpt(workspace).tasks if share.task == task)
    return share.status, share.points


def test_nothing_done_is_zero_of_ten(workspace: Path) -> None:
    unit = mini_gpt(workspace)
    assert (unit.points, unit.max_points, unit.is_started, unit.is_done) == (0, 10, False, False)
    assert [task.task for task in unit.tasks] == list(load(UNIT))


def test_the_best_try_counts(workspace: Path) -> None:
    best = load(UNIT)["sample"].points
    for points in (0, best, 1):
        say("sample", points)
    assert status_of(workspace, "sample") == ("passed", best)


def test_an_untouched_task_is_not_a_failed_one(workspace: Path) -> None:
    say("sample", 0, state="not_started")
    assert status_of(workspace, "sample") == ("not_started", 0)
    say("sample", 0)
    assert status_of(workspace, "sample") == ("failed", 0)


def test_a_task_given_up_counts_zero_for_good(workspace: Path) -> None:
    best = load(UNIT)["sample"].points
    say("sample", best)
    say("sample", 0, kind="reference")
    say("sample", best)
    assert status_of(workspace, "sample") == ("given_up", 0)


def test_what_was_recorded_for_tasks_that_are_gone_does_no_harm(workspace: Path) -> None:
    gone = {"points": 3, "max_points": 3, "status": "passed"}
    record({"unit": UNIT, "task": "gone", **gone})
    record({"unit": "gone", "task": "gone", **gone})
    assert mini_gpt(workspace).points == 0


def test_next_is_the_first_unit_then_the_one_in_work(workspace: Path) -> None:
    def following(route: str = "") -> str:
        unit = progress.read(workspace).next_unit(route)
        return unit.unit.slug if unit else ""

    assert following() == "first_call"
    assert following("researcher") == next(unit.slug for unit in course().finished if "researcher" in unit.roles)
    say("sample", 0)
    assert following() == UNIT
    for task, check in load(UNIT).items():
        say(task, check.points)
    assert mini_gpt(workspace).is_done
    assert following() == "first_call"
    for unit in course().finished:
        for task in load(unit.slug) if unit.slug != UNIT else ():
            say(task, 0, kind="reference", unit=unit.slug)
    assert following() == ""


def test_the_revision_changes_with_every_record(workspace: Path) -> None:
    before = progress.revision(workspace)
    say("sample", 0)
    assert progress.revision(workspace) != before


@pytest.mark.parametrize(("language", "word"), [("en", "points"), ("de", "Punkte")])
def test_status_is_a_table_in_the_workspaces_language(workspace: Path, language: str, word: str) -> None:
    (workspace / ".kicourse" / "language").write_text(language)
    say("sample", load(UNIT)["sample"].points)
    console = Console(width=100, record=True, force_terminal=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(status.table(workspace))
    text = console.export_text()
    assert word in text
    assert "✓" in text
    assert "2 / 10" in text or f"{load(UNIT)['sample'].points:g} / 10" in text


def test_status_tells_of_a_broken_progress_file(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say("sample", load(UNIT)["sample"].points)
    with journal(workspace).open("ab") as file:
        file.write(b"broken\n")
    status.show(workspace)
    assert "progress.corrupt-1.jsonl" in capsys.readouterr().out
    status.show(workspace)
    told_again = capsys.readouterr().out
    assert "corrupt" not in told_again
    assert "✓" in told_again
