"""What `kicourse check` says: the outcome of each task, as a table, as JSON and as JUnit XML."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {"passed": "green", "partial": "yellow", "failed": "red", "error": "red", "not_started": "dim"}
NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class CriterionReport:
    """How one criterion went."""

    name: str
    status: str
    message: str
    title: str = ""


@dataclass(frozen=True)
class TaskReport:
    """How one task went. `message` is the diagnosis, or why there is no verdict."""

    task: str
    points: float
    max_points: float
    status: str
    criteria: tuple[CriterionReport, ...] = ()
    message: str = ""

    @property
    def failures(self) -> list[str]:
        """What failed, a line each."""
        if self.status == "not_started":
            return ["not started"]
        failed = [criterion for criterion in self.criteria if criterion.status == "failed"]
        lines = [f"{criterion.title or criterion.name}: {criterion.message}" for criterion in failed]
        return [*lines, self.message] if self.message else lines


def read_task(content: Mapping[str, Any]) -> TaskReport:
    """Return the report that `dataclasses.asdict` made this of."""
    criteria = tuple(CriterionReport(**criterion) for criterion in content["criteria"])
    return TaskReport(**{**content, "criteria": criteria})


@dataclass(frozen=True)
class NotebookReport:
    """How one notebook went; one that could not be run has an `error` and no tasks."""

    notebook: str
    unit: str
    tasks: tuple[TaskReport, ...] = ()
    error: str = ""
    seconds: float = 0

    @property
    def score(self) -> float:
        """The points earned."""
        return sum(task.points for task in self.tasks)

    @property
    def max_score(self) -> float:
        """The points that can be earned."""
        return sum(task.max_points for task in self.tasks)

    @property
    def has_full_marks(self) -> bool:
        """Whether the notebook was run and every task is passed."""
        return not self.error and all(task.status == "passed" for task in self.tasks)


def as_json(reports: Sequence[NotebookReport]) -> str:
    """Return the reports as a JSON array; a notebook that could not be run has an "error" too."""
    return json.dumps([_as_dict(report) for report in reports], ensure_ascii=False, indent=2) + "\n"


def _as_dict(report: NotebookReport) -> dict[str, object]:
    about = {"notebook": report.notebook, "unit": report.unit, "score": report.score, "max_score": report.max_score}
    return (
        about
        | {"tasks": [task_as_dict(task) for task in report.tasks]}
        | ({"error": report.error} if report.error else {})
    )


def task_as_dict(task: TaskReport) -> dict[str, object]:
    """Return a task as it stands in JSON."""
    criteria = [{"name": one.name, "status": one.status, "message": one.message} for one in task.criteria]
    about = {"task": task.task, "points": task.points, "max_points": task.max_points, "status": task.status}
    return about | {"criteria": criteria}


def as_junit(reports: Sequence[NotebookReport]) -> str:
    """Return the reports as JUnit XML: a suite a notebook, a case a task."""
    root = ElementTree.Element("testsuites", name="kicourse check")
    for report in reports:
        root.append(_suite(report))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(report: NotebookReport) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=_clean(report.notebook), time=f"{report.seconds:.1f}")
    cases = report.tasks or (TaskReport("notebook", 0, 0, "error", (), report.error),)
    for task in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=report.unit or "notebook", name=task.task)
        if task.status != "passed":
            kind = "error" if task.status == "error" else "failure"
            headline = f"{task.status}: {task.points:g} of {task.max_points:g} points"
            ElementTree.SubElement(case, kind, message=headline).text = _clean("\n".join(task.failures))
    errors = sum(task.status == "error" for task in cases)
    failures = sum(task.status not in ("error", "passed") for task in cases)
    suite.attrib.update(tests=str(len(cases)), errors=str(errors), failures=str(failures))
    return suite


def _clean(text: str) -> str:
    """Take out the control characters that XML cannot hold."""
    return NOT_IN_XML.sub("", text)


def show(reports: Sequence[NotebookReport], console: Console) -> None:
    """Print the reports as a table, without lines and colours where the output is not a terminal."""
    table = Table(box=box.ROUNDED if console.is_terminal else None)
    for heading in ("unit", "task", "points", "what failed"):
        table.add_column(heading, justify="right" if heading == "points" else "left", overflow="fold")
    for report in reports:
        _add_rows(table, report)
    console.print(table)
    for report in reports:
        result = report.error or f"{report.score:g} of {report.max_score:g} points"
        style = "green" if report.has_full_marks else "red" if report.error else "yellow"
        console.print(Text.assemble(f"{report.notebook}: ", (result, style)), soft_wrap=True)


def _add_rows(table: Table, report: NotebookReport) -> None:
    for task in report.tasks:
        style = STYLES[task.status]
        points = Text(f"{task.points:g}/{task.max_points:g}", style=style)
        table.add_row(report.unit, task.task, points, Text("\n".join(task.failures)))
    table.add_section()
