"""What `kicourse grade` shows: progress while it works, and a table at the end."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from kicourse.grading.open_class import OpenClass
from kicourse.grading.report import STYLES
from kicourse.grading.results import Line, Results

if TYPE_CHECKING:
    from kicourse.grading.grade import Settings

_PLAIN_WIDTH = 160
_ROWS = 1_000  # of a table, which is laid out as a whole


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
        self._done, self._total = 0, total

    def __enter__(self) -> "Progress":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it is."""
        self.stop()

    def stop(self) -> None:
        """Stop drawing, so that something else can be printed."""
        self._bar.stop()

    def skip(self) -> None:
        """Count one submission less: it took no time, and tells nothing of how long the others will take."""
        self._total -= 1
        self._bar.update(self._task, total=self._total)

    def advance(self) -> None:
        """Count one more submission as done."""
        self._done += 1
        speed = self._bar.tasks[0].speed
        rate = f"{speed * 60:.0f} a minute" if speed else ""
        self._bar.update(self._task, completed=self._done, rate=rate)


def show(opened: OpenClass, results: Results, settings: "Settings", console: Console) -> None:
    """Print the marks as a table, what was left out, and where everything was written."""
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    lines = sorted(results.lines)
    for start in range(0, len(lines), _ROWS):
        console.print(_table(lines[start : start + _ROWS], console))
    if any(line.status == "error" for line in lines):
        console.print("What could not be graded keeps the marks that it had. Run the same command again.")
    for path, why in opened.overlooked(settings.units, settings.students):
        console.print(f"Left out: submitted/{_printable(path)} ({_printable(why)}).", markup=False, soft_wrap=True)
    if results.skipped:
        console.print(f"{results.skipped} graded before and unchanged (--force grades them anew).", highlight=False)
    if by_hand := results.marked_by_hand:
        what = "One submission has marks" if by_hand == 1 else f"{by_hand} submissions have marks"
        console.print(f"{what} by hand, which count in the gradebook; the table has what the checks gave.")
    if not results.lines and not results.skipped:
        by_whom = f" by {', '.join(map(_printable, settings.students))}" if settings.students else ""
        what = f"Nothing was handed in: {opened.root / 'submitted'} has no submissions of these units{by_whom}."
        console.print(what, markup=False, soft_wrap=True)
        return
    written = opened.shown_db_url, f"{opened.root / 'autograded'}", f"{opened.root / 'feedback'}"
    if any(line.status != "error" for line in lines):
        console.print(f"Written: {', '.join(written)}", markup=False, soft_wrap=True)


def _printable(text: str) -> str:
    """Return a text that does nothing to a terminal: a folder's name may be anything."""
    return repr(text)[1:-1]


def _table(lines: Sequence[Line], console: Console) -> Table:
    table = Table(box=box.ROUNDED if console.is_terminal else None)
    for heading in ("student", "unit", "points", "seconds", "remarks"):
        table.add_column(heading, justify="right" if heading in ("points", "seconds") else "left", overflow="fold")
    for line in lines:
        complete = line.status == "graded" and line.score >= line.max_score
        style = STYLES["passed" if complete else "partial" if line.status == "graded" else "error"]
        score = "-" if line.status == "error" else f"{line.score:g}"
        points = Text(f"{score}/{line.max_score:g}", style=style)
        table.add_row(Text(_printable(line.student)), line.unit, points, f"{line.seconds:.1f}", Text(line.remark))
    return table
