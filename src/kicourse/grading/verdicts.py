"""Verdicts as reports, and what is reported where there is no verdict."""

import re
from typing import Any

from kicourse.checks import Check
from kicourse.checks.verdict import Verdict
from kicourse.grading.harmless import plain
from kicourse.grading.report import CriterionReport, TaskReport
from kicourse.language import _, translate


def with_verdict(verdict: Verdict) -> TaskReport:
    """Return a verdict as a report."""
    criteria = tuple(
        CriterionReport(result.name, result.status, plain(result.message), result.title) for result in verdict.criteria
    )
    return TaskReport(verdict.task, verdict.points, verdict.max_points, verdict.status, criteria, verdict.diagnosis)


def without_verdict(check: Check, status: str, message: str) -> TaskReport:
    """Return the report of a task that no check has decided, and why."""
    criteria = tuple(CriterionReport(one.name, "not_reached", message) for one in check.criteria)
    return TaskReport(check.task, 0, check.points, status, criteria, message)


def silent(check: Check, errors: list[dict[str, Any]], lost: str = "") -> TaskReport:
    """Return the report of a check whose cell handed no answer in.

    `errors` are those of the task's cell and of the check's, the first of which says why, unless the task's cell was
    left out since the process was `lost` there.
    """
    if lost:
        return without_verdict(check, "error", lost)
    if any(error["ename"] == "NotImplementedError" for error in errors):
        return without_verdict(check, "not_started", "")
    if errors:
        return without_verdict(check, "error", _sentence(errors[0]))
    nothing = translate("kicourse", _("The check cell ended without a verdict; it should read `check.{task}(...)`."))
    return without_verdict(check, "error", nothing.format(task=check.task))


def _sentence(error: dict[str, Any]) -> str:
    # IPython names a cell as a file of its own, with a number that tells nobody anything.
    place = translate("kicourse", _("line {number} of the cell")).format(number=r"\1")
    found = r"\((?:\d+\.py|<ipython-input[^>]*>), line (\d+)\)"
    return re.sub(found, f"({place})", f"{error['ename']}: {error['evalue']}")
