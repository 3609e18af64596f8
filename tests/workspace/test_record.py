"""Progress is never lost: several kernels at once, a kill at any moment, a broken file."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kicourse.checks.record import journal, manifest, record, was_given_up
from kicourse.workspace import journal as journals

VERDICT = {"unit": "mini_gpt", "task": "sample", "points": 2, "max_points": 2, "status": "passed"}
WRITER = """
import sys
from kicourse.checks.record import record
for number in range(int(sys.argv[1])):
    record({"unit": "u", "task": sys.argv[2] + "ä" * 200, "points": 1, "max_points": 2, "status": "partial"})
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    manifest(tmp_path).parent.mkdir()
    manifest(tmp_path).write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def writer(count: int, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(count), name])


def test_a_verdict_is_recorded_from_a_subfolder(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace / "drafts").mkdir()
    monkeypatch.chdir(workspace / "drafts")
    record(VERDICT)
    record({**VERDICT, "points": 0, "status": "given_up"}, kind="reference")
    entries = journals.read(workspace)
    assert [(entry.task, entry.points, entry.kind) for entry in entries] == [
        ("sample", 2, "check"),
        ("sample", 0, "reference"),
    ]


def test_a_task_given_up_stays_given_up_in_the_next_kernel(workspace: Path) -> None:
    record(VERDICT)
    assert not was_given_up("mini_gpt", "sample")
    record({**VERDICT, "points": 0}, kind="reference")
    with journal(workspace).open("ab") as file:
        file.write(b'"reference"\n[]\n{"kind": "refer')
    assert was_given_up("mini_gpt", "sample")
    assert not was_given_up("mini_gpt", "train")


def test_nothing_is_written_outside_of_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record(VERDICT)
    assert list(tmp_path.iterdir()) == []


def test_nbgrader_runs_leave_no_progress(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    record(VERDICT)
    assert journals.read(workspace) == []


def test_a_check_survives_a_workspace_that_cannot_be_written(workspace: Path) -> None:
    journal(workspace).mkdir()
    record(VERDICT)
    record({})


def test_kernels_writing_at_once_lose_no_line(workspace: Path) -> None:
    writers = [writer(50, name) for name in "abcd"]
    assert [process.wait(60) for process in writers] == [0] * 4
    tasks = [entry.task[0] for entry in journals.read(workspace)]
    assert {name: tasks.count(name) for name in "abcd"} == dict.fromkeys("abcd", 50)


def test_a_killed_kernel_leaves_a_file_that_goes_on(workspace: Path) -> None:
    process = writer(1_000_000, "k")
    while not journal(workspace).is_file():
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = len(journals.read(workspace))
    record(VERDICT)
    after = journals.read(workspace)
    assert before > 0
    assert len(after) == before + 1
    assert after[-1].task == "sample"


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_half_a_line_costs_only_itself(workspace: Path, cut: int) -> None:
    record(VERDICT)
    whole = journal(workspace).read_bytes()
    journal(workspace).write_bytes(whole + whole[:cut])
    assert len(journals.read(workspace)) == 1
    assert not list(journal(workspace).parent.glob("*.corrupt-*"))
    record({**VERDICT, "task": "train"})
    assert [entry.task for entry in journals.read(workspace)] == ["sample", "train"]


@pytest.mark.parametrize("noise", [b"\x00\xff\xfe", b"[]", b'{"time": 1}', b'"text"', b"9" * 5000, b"{" * 5000])
def test_a_corrupt_file_is_kept_aside_and_its_good_lines_go_on(workspace: Path, noise: bytes) -> None:
    record(VERDICT)
    damaged = noise + b"\n" + journal(workspace).read_bytes() + noise + b"\n"
    journal(workspace).write_bytes(damaged)
    assert [entry.task for entry in journals.read(workspace)] == ["sample"]
    assert journal(workspace).with_name("progress.corrupt-1.jsonl").read_bytes() == damaged
    record({**VERDICT, "task": "train"})
    assert [entry.task for entry in journals.read(workspace)] == ["sample", "train"]
    assert all(json.loads(line) for line in journal(workspace).read_text().splitlines())


def test_every_damage_is_kept(workspace: Path) -> None:
    for text in ("first", "second"):
        journal(workspace).write_text(f"{text}\n")
        journals.read(workspace)
    kept = sorted(journal(workspace).parent.glob("progress.corrupt-*"))
    assert [path.read_text() for path in kept] == ["first\n", "second\n"]
