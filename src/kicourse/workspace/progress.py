"""How far a learner is: the best points of every task, and what comes next."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kicourse import checks
from kicourse.checks import record
from kicourse.syllabus import Part, Unit, course
from kicourse.workspace import journal
from kicourse.workspace.journal import Entry

TaskStatus = Literal["passed", "partial", "failed", "not_started", "given_up"]

CORE = "core"


@dataclass(frozen=True)
class TaskProgress:
    """One task: the best that a check has said of it. What was given up counts zero for good."""

    task: str
    title: str
    points: float
    max_points: float
    status: TaskStatus

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing left to do."""
        return self.status in ("passed", "given_up")


@dataclass(frozen=True)
class Total:
    """What some tasks come to."""

    tasks: tuple[TaskProgress, ...]

    @property
    def points(self) -> float:
        """Points earned."""
        return sum(task.points for task in self.tasks)

    @property
    def max_points(self) -> float:
        """Points there are."""
        return sum(task.max_points for task in self.tasks)

    @property
    def passed(self) -> int:
        """How many tasks have full marks."""
        return sum(task.status == "passed" for task in self.tasks)


@dataclass(frozen=True)
class UnitProgress(Total):
    """One unit; an announced one has no tasks yet. `last_worked` is the time of its newest entry, "" for none."""

    unit: Unit
    last_worked: str = ""

    @property
    def is_started(self) -> bool:
        """Whether any task was tried."""
        return any(task.status != "not_started" for task in self.tasks)

    @property
    def is_done(self) -> bool:
        """Whether every task is passed or given up."""
        return self.unit.finished and all(task.is_settled for task in self.tasks)

    @property
    def next_task(self) -> TaskProgress | None:
        """The first task that is left to do."""
        return next((task for task in self.tasks if not task.is_settled), None)


@dataclass(frozen=True)
class Progress:
    """A learner's progress through the course, part by part, announced units included."""

    parts: tuple[tuple[Part, tuple[UnitProgress, ...]], ...]

    @property
    def units(self) -> tuple[UnitProgress, ...]:
        """Every unit, in order."""
        return tuple(unit for _part, units in self.parts for unit in units)

    def on_route(self, route: str) -> tuple[UnitProgress, ...]:
        """Return the units of a route: CORE, a role, or "" for all of them."""
        return tuple(unit for unit in self.units if is_on_route(unit.unit, route))

    def total(self, route: str = "") -> Total:
        """Return what the tasks of a route come to."""
        return Total(tuple(task for unit in self.on_route(route) for task in unit.tasks))

    def next_unit(self, route: str = "") -> UnitProgress | None:
        """Return the unit to work on now: the one worked on last, else the first that is not done."""
        left = [unit for unit in self.on_route(route) if unit.unit.finished and not unit.is_done]
        return max(left, key=lambda unit: unit.last_worked, default=None)


def is_on_route(unit: Unit, route: str) -> bool:
    """Return whether a unit belongs to a route: CORE, a role, or "" for all units."""
    if route == CORE:
        return unit.slug in course().core_path
    return not route or route in unit.roles


def read(root: Path) -> Progress:
    """Read the progress of the workspace at `root`."""
    return _progress(journal.read(root))


def revision(root: Path) -> str:
    """Return a short text that changes whenever the progress does."""
    try:
        status = record.journal(root).stat()
    except OSError:
        return "0"
    return f"{status.st_mtime_ns}-{status.st_size}"


def _progress(entries: Iterable[Entry]) -> Progress:
    of_unit: dict[str, list[Entry]] = {}
    for entry in entries:
        of_unit.setdefault(entry.unit, []).append(entry)
    return Progress(
        tuple((part, tuple(_unit(unit, of_unit.get(unit.slug, [])) for unit in part.units)) for part in course().parts)
    )


def _unit(unit: Unit, entries: list[Entry]) -> UnitProgress:
    if not unit.finished:
        return UnitProgress((), unit)
    tasks = tuple(
        _task(task, check, [entry for entry in entries if entry.task == task])
        for task, check in checks.load(unit.slug).items()
    )
    return UnitProgress(tasks, unit, max((entry.time for entry in entries), default=""))


def _task(task: str, check: checks.Check, entries: list[Entry]) -> TaskProgress:
    if any(entry.kind == "reference" for entry in entries):
        return TaskProgress(task, check.title, 0, check.points, "given_up")
    tried = [entry for entry in entries if entry.status != "not_started"]
    points = max((min(entry.points, check.points) for entry in tried), default=0)
    return TaskProgress(task, check.title, points, check.points, _status(points, check.points, bool(tried)))


def _status(points: float, max_points: float, was_tried: bool) -> TaskStatus:
    if not was_tried:
        return "not_started"
    if points >= max_points:
        return "passed"
    return "partial" if points > 0 else "failed"
