"""What came of each submission, kept small in memory: a line for the table, and the whole on disk for the JSON."""

import json
import tempfile
import textwrap
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from types import TracebackType
from typing import Any

from kicourse.grading.job import Outcome, Status
from kicourse.grading.report import TaskReport, task_as_dict


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """One submission in the table; they are sorted by unit and student."""

    unit: str
    student: str
    status: Status
    score: float
    max_score: float
    seconds: float
    remark: str


class Results(AbstractContextManager["Results"]):
    """Outcomes, one after the other. With `keeps_all`, each is written to a temporary file, for `write_json`."""

    def __init__(self, keeps_all: bool) -> None:
        self.lines: list[Line] = []
        self.skipped = 0
        self.marked_by_hand = 0
        self._file = tempfile.TemporaryFile() if keeps_all else None  # noqa: SIM115 (closed on exit)
        self._places: list[tuple[str, str, int, int]] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Forget what is on disk."""
        if self._file is not None:
            self._file.close()

    def add(self, outcome: Outcome, *, skipped: bool = False) -> None:
        """Take in an outcome; one that is `skipped` was there before, and has no line in the table."""
        if skipped:
            self.skipped += 1
        else:
            self.lines.append(_line(outcome))
        if self._file is not None:
            content = json.dumps(_as_dict(outcome), ensure_ascii=False, indent=2).replace("\n", "\n  ").encode()
            self._places.append((intern(outcome.unit), outcome.student, self._file.tell(), len(content)))
            self._file.write(content)

    def write_json(self, path: Path) -> None:
        """Write all outcomes as a JSON array, sorted by unit and student."""
        assert self._file is not None
        with path.open("wb") as target:
            target.write(b"[")
            for number, (_unit, _student, start, length) in enumerate(sorted(self._places)):
                self._file.seek(start)
                target.write((b",\n  " if number else b"\n  ") + self._file.read(length))
            target.write(b"\n]\n" if self._places else b"]\n")


def _line(outcome: Outcome) -> Line:
    remark = outcome.message or ", ".join(_open(task) for task in outcome.tasks if task.status != "passed")
    about = outcome.status, outcome.score, outcome.max_score, outcome.seconds
    return Line(intern(outcome.unit), outcome.student, *about, remark)


def _open(task: TaskReport) -> str:
    """Say what a task lacks; where there is no verdict, also why."""
    points = f"{task.task} {task.points:g}/{task.max_points:g}"
    return f"{points} ({textwrap.shorten(task.message, 60)})" if task.status == "error" and task.message else points


def _as_dict(outcome: Outcome) -> dict[str, Any]:
    about: dict[str, Any] = {"student": outcome.student, "unit": outcome.unit}
    about |= {"score": outcome.score, "max_score": outcome.max_score, "status": outcome.status}
    about |= {"seconds": round(outcome.seconds, 3), "tasks": [task_as_dict(task) for task in outcome.tasks]}
    return about | ({"message": outcome.message} if outcome.message else {})
