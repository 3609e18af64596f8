"""What an audit found, as data and as a table."""

import json
from dataclasses import asdict, dataclass, field

from rich import box
from rich.console import Console
from rich.table import Table

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@dataclass(frozen=True)
class Survivor:
    """A wrong solution that passes its check: the lines that differ, and the change as a unified diff."""

    before: str
    after: str
    diff: str


@dataclass(frozen=True)
class TaskResult:
    """How many wrong solutions a task's check was tried with, and which ones it did not notice.

    `equivalents` are survivors that the author has marked as no fault, `unused` marks that no survivor needs.
    """

    unit: str
    task: str
    tried: int
    killed: int
    equivalents: list[str]
    survivors: list[Survivor]
    unused: list[str]
    seconds: float


@dataclass(frozen=True)
class Report:
    """What an audit found."""

    tasks: list[TaskResult] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every wrong solution was noticed, or is marked as equivalent."""
        return not any(task.survivors for task in self.tasks)

    def as_json(self) -> str:
        """Return the report as a JSON array, one object a task."""
        return json.dumps([asdict(task) for task in self.tasks], indent=1, ensure_ascii=False) + "\n"

    def show(self, console: Console) -> None:
        """Print a table, and the diff of each survivor."""
        console.print(self._table())
        for task in self.tasks:
            for survivor in task.survivors:
                console.print(f"\n[bold]{task.unit}.{task.task}[/bold]: the check does not notice", highlight=False)
                for row in survivor.diff.splitlines():
                    console.print(row, style=_COLOURS.get(row[:1]), highlight=False, markup=False, soft_wrap=True)
                if survivor.before:
                    mark = f"{task.task}.equivalent({survivor.before!r}, {survivor.after!r}, reason=...)"
                    line = f"If that is no fault, say why in the checks module: {mark}"
                    console.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)
            for mark in task.unused:
                line = f"{task.unit}.{task.task}: nothing survives that needs this mark: {mark}"
                console.print(line, highlight=False, markup=False)

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE)
        table.add_column("task", no_wrap=True)
        for heading in ("tried", "killed", "equivalent", "survived"):
            table.add_column(heading, justify="right")
        for task in self.tasks:
            survived = f"[red]{len(task.survivors)}[/red]" if task.survivors else "[green]0[/green]"
            counts = str(task.tried), str(task.killed), str(len(task.equivalents)), survived
            table.add_row(f"{task.unit}.{task.task}", *counts)
        return table
