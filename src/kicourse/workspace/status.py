"""`kicourse status`: a learner's progress in the terminal."""

from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kicourse.language import _, translate
from kicourse.workspace import journal, progress
from kicourse.workspace.folder import Workspace
from kicourse.workspace.progress import TaskProgress, UnitProgress

MARKS = {"passed": "✓", "partial": "◐", "failed": "✗", "not_started": "·", "given_up": "–"}
COLOURS = {"passed": "green", "partial": "yellow", "failed": "red", "not_started": "dim", "given_up": "dim"}
UNIT, POINTS = _("unit and task"), _("points")
GIVEN_UP = _("given up")
NEXT = _("Next: {unit}, {task}")
MENDED = _("The progress file had broken lines. It is kept as {name}; everything that could be read goes on.")
ALL_DONE = _("Every unit that there is so far is done. Well done!")


def show(folder: Path) -> None:
    """Print the progress of a workspace. Raises UsageError if `folder` is not one."""
    workspace = Workspace.open(folder)
    if aside := journal.mend(workspace.root):
        Console().print(mended(aside, workspace.language), soft_wrap=True)
    Console().print(table(folder))


def mended(aside: Path, language: str) -> str:
    """Say that a broken progress file was kept aside."""
    return translate("kicourse", MENDED, language).format(name=aside.name)


def table(folder: Path) -> RenderableType:
    """Return a table of every unit and task, with bars in a terminal. Raises UsageError for no workspace."""
    workspace = Workspace.open(folder)
    return _Words(workspace.language).table(progress.read(workspace.root))


class _Words:
    """The table in one language."""

    def __init__(self, language: str) -> None:
        self.language = language

    def table(self, state: progress.Progress) -> RenderableType:
        rows = Table(box=None, padding=(0, 2, 0, 0))
        rows.add_column(self._shared(UNIT))
        rows.add_column(self._shared(POINTS), justify="right")
        rows.add_column("")
        for unit in state.units:
            if unit.unit.finished:
                self._add(rows, unit)
        return Group(rows, Text(""), Text(self._next(state)))

    def _add(self, rows: Table, unit: UnitProgress) -> None:
        title = Text(translate("syllabus", unit.unit.title, self.language), style="bold")
        rows.add_row(title, _points(unit), _bar(unit))
        for task in unit.tasks:
            rows.add_row(self._task(unit.unit.slug, task), _points(task), _bar(task))

    def _task(self, unit: str, task: TaskProgress) -> RenderableType:
        title = translate(unit, task.title, self.language).replace("`", "")
        given_up = f" ({self._shared(GIVEN_UP)})" if task.status == "given_up" else ""
        return Padding(Text(f"{MARKS[task.status]} {title}{given_up}", style=COLOURS[task.status]), (0, 0, 0, 2))

    def _next(self, state: progress.Progress) -> str:
        unit = state.next_unit()
        if unit is None or unit.next_task is None:
            return self._shared(ALL_DONE)
        title = translate("syllabus", unit.unit.title, self.language)
        task = translate(unit.unit.slug, unit.next_task.title, self.language).replace("`", "")
        return self._shared(NEXT).format(unit=title, task=task)

    def _shared(self, message: str) -> str:
        return translate("kicourse", message, self.language)


def _points(share: TaskProgress | UnitProgress) -> str:
    return f"{share.points:g} / {share.max_points:g}"


def _bar(share: TaskProgress | UnitProgress) -> RenderableType:
    return ProgressBar(total=share.max_points or 1, completed=share.points, width=24)
