"""Reading the verdicts out of a notebook that was run."""

import re
from typing import Any

from nbformat import NotebookNode

from kicourse import checks
from kicourse.checks import Check
from kicourse.checks.verdict import MIMETYPE
from kicourse.grading.execution import KERNEL_DIED, TIMED_OUT
from kicourse.grading.opening import OpenNotebook
from kicourse.grading.report import CriterionReport, NotebookReport, TaskReport


def report_of(notebook: OpenNotebook, name: str, seconds: float) -> NotebookReport:
    """Return how every task of the notebook's unit went."""
    cells = {_grade_id(cell): cell for cell in notebook.node.cells if cell.cell_type == "code"}
    first = next(iter(cells.values()), None)
    tasks = [
        _task(check, cells.get(f"{task}-check"), cells.get(task), first)
        for task, check in checks.load(notebook.unit.slug).items()
    ]
    return NotebookReport(name, notebook.unit.slug, tuple(tasks), seconds=seconds)


def _task(
    check: Check, check_cell: NotebookNode | None, task_cell: NotebookNode | None, first: NotebookNode | None
) -> TaskReport:
    if check_cell is None:
        return without_verdict(check, "error", f"The notebook lacks the check cell of this task, `{check.task}-check`.")
    verdict = _last_verdict(check, check_cell)
    if verdict is not None:
        return with_verdict(verdict)
    errors = [error for cell in (first, task_cell, check_cell) if cell is not None and (error := _error(cell))]
    if any(error.ename == "NotImplementedError" for error in errors):
        return without_verdict(check, "not_started", "")
    if errors:
        return without_verdict(check, "error", _sentence(errors[0]))
    return without_verdict(check, "error", _why_silent(check, check_cell))


def with_verdict(verdict: dict[str, Any]) -> TaskReport:
    """Return a verdict as a report."""
    criteria = tuple(
        CriterionReport(result["name"], result["status"], result["message"], result["title"])
        for result in verdict["criteria"]
    )
    return TaskReport(
        verdict["task"], verdict["points"], verdict["max_points"], verdict["status"], criteria, verdict["diagnosis"]
    )


def without_verdict(check: Check, status: str, message: str) -> TaskReport:
    """Return the report of a task that no check has decided, and why."""
    criteria = tuple(CriterionReport(one.name, "not_reached", message) for one in check.criteria)
    return TaskReport(check.task, 0, check.points, status, criteria, message)


def _last_verdict(check: Check, cell: NotebookNode) -> dict[str, Any] | None:
    """The verdict that counts: the last one of this very task in its check cell."""
    found = [output["data"][MIMETYPE] for output in cell.outputs if MIMETYPE in output.get("data", {})]
    own = [verdict for verdict in found if (verdict["unit"], verdict["task"]) == (check.unit, check.task)]
    return own[-1] if own else None


def _error(cell: NotebookNode) -> NotebookNode | None:
    """The last error among a cell's outputs."""
    return next((output for output in reversed(cell.outputs) if output.output_type == "error"), None)


def _sentence(error: NotebookNode) -> str:
    if error.ename in (TIMED_OUT, KERNEL_DIED):
        return str(error.evalue)
    # IPython names a cell as a file of its own, with a number that tells nobody anything.
    return re.sub(r"\(\d+\.py, line (\d+)\)", r"(line \1 of the cell)", f"{error.ename}: {error.evalue}")


def _why_silent(check: Check, cell: NotebookNode) -> str:
    if cell.execution_count is None:
        return "The check was not run, since an earlier cell stopped the notebook."
    return f"The check cell ended without a verdict; it should read `check.{check.task}(...)`."


def _grade_id(cell: NotebookNode) -> str:
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", cell.get("id", "")))
