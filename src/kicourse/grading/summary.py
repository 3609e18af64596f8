"""What `kicourse grade` shows: progress while it works, a table at the end, and the same as JSON."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from kicourse.grading.job import Outcome
from kicourse.grading.open_class import OpenClass
from kicourse.grading.report import STYLES, task_as_dict

if TYPE_CHECKING:
    from kicourse.grading.grade import Settings

_PLAIN_WIDTH = 160


class Progress(AbstractContextManager["Progress"]):
    """A bar with rate and time left, where the output is a terminal."""

    def __init__(self, total: int, console: Console) -> None:
        rate = TextColumn("{task.fields[rate]}")
        columns = (
            TextColumn("grading"),
            BarColumn(),
            MofNCompleteColumn(),
            rate,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Bar(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("grading", total=total, rate="")
        self._done = 0

    def __enter__(self) -> "Progress":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def advance(self) -> None:
        """Count one more submission as done."""
        self._done += 1
        speed = self._bar.tasks[0].speed
        rate = f"{speed * 60:.0f} a minute" if speed else ""
        self._bar.update(self._task, completed=self._done, rate=rate)


def as_json(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a JSON array."""
    return json.dumps([_as_dict(outcome) for outcome in outcomes], ensure_ascii=False, indent=2) + "\n"


def _as_dict(outcome: Outcome) -> dict[str, Any]:
    about: dict[str, Any] = {"student": outcome.student, "unit": outcome.unit}
    about |= {"score": outcome.score, "max_score": outcome.max_score, "status": outcome.status}
    about |= {"seconds": round(outcome.seconds, 3), "tasks": [task_as_dict(task) for task in outcome.tasks]}
    return about | ({"message": outcome.message} if outcome.message else {})


def show(opened: OpenClass, outcomes: Sequence[Outcome], skipped: int, settings: "Settings", console: Console) -> None:
    """Print the marks as a table, what was left out, and where everything was written."""
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    if outcomes:
        console.print(_table(outcomes, console))
    for place in opened.unknown_units():
        console.print(
            f"Not graded, since the class does not have this unit: submitted/{_printable(place)}",
            markup=False,
            soft_wrap=True,
        )
    for name in opened.unusable():
        text = f"Not graded, since it is no folder with a student's name: submitted/{_printable(name)}"
        console.print(text, markup=False, soft_wrap=True)
    if skipped:
        console.print(f"{skipped} graded before and unchanged (--force grades them anew).", highlight=False)
    if not outcomes and not skipped:
        console.print(
            f"Nothing was handed in: {opened.root / 'submitted'} has no submissions of these units.", soft_wrap=True
        )
        return
    written = [opened.db_url, f"{opened.root / 'autograded'}", f"{opened.root / 'feedback'}"]
    console.print(
        "Written: " + ", ".join(written + ([str(settings.json)] if settings.json else [])), markup=False, soft_wrap=True
    )


def _printable(text: str) -> str:
    """Return a text that does nothing to a terminal: a folder's name may be anything."""
    return repr(text)[1:-1]


def _table(outcomes: Sequence[Outcome], console: Console) -> Table:
    table = Table(box=box.ROUNDED if console.is_terminal else None)
    for heading in ("student", "unit", "points", "seconds", "remarks"):
        table.add_column(heading, justify="right" if heading in ("points", "seconds") else "left", overflow="fold")
    for outcome in sorted(outcomes, key=lambda one: (one.unit, one.student)):
        complete = outcome.status == "graded" and outcome.score >= outcome.max_score
        style = STYLES["passed" if complete else "partial" if outcome.status == "graded" else "error"]
        points = Text(f"{outcome.score:g}/{outcome.max_score:g}", style=style)
        remark = outcome.message or ", ".join(
            f"{task.task} {task.points:g}/{task.max_points:g}" for task in outcome.tasks if task.status != "passed"
        )
        table.add_row(Text(outcome.student), outcome.unit, points, f"{outcome.seconds:.1f}", Text(remark))
    return table
