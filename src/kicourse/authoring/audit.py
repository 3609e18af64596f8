"""How strong are the checks? Each is tried against slightly wrong versions of the solution that it should refuse."""

import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from kicourse import syllabus
from kicourse.authoring import forks
from kicourse.authoring.results import Report, Survivor, TaskResult
from kicourse.authoring.rules import problems
from kicourse.authoring.source import RefusedError, read, unit_checks
from kicourse.errors import UserError
from kicourse.result_files import require_place, writing

_A_DAY = 86400.0


def run(units: list[str] | None = None, json: Path | None = None) -> int:
    """Audit, print what was found, write it to `json`, and return the exit status: 1 if a check has a hole."""
    require_place(json)
    notes = Console(stderr=True, highlight=False)
    report = audit(units, progress=lambda result: notes.print(_line(result)))
    report.show(Console())
    if json is not None:
        with writing(json):
            json.write_text(report.as_json(), encoding="utf-8")
    return 0 if report.ok else 1


def audit(
    units: list[str] | None = None,
    *,
    workers: int = 2,
    progress: Callable[[TaskResult], None] = lambda result: None,
) -> Report:
    """Try the checks of these units, or of all finished ones, against every mutant and misconception.

    `progress` is called after each task, in another process. Raises UserError if a unit's own solution fails, and
    where processes cannot be forked (Windows).
    """
    if not hasattr(os, "fork"):
        raise UserError("The audit forks processes, which Windows cannot: run it on Linux or macOS, or in WSL.")
    tasks: list[TaskResult] = []
    for slug in units or [unit.slug for unit in syllabus.course().finished]:
        # A process of its own for each unit: the notebooks of a course know nothing of each other.
        [(_, found)] = forks.run([partial(_unit, slug, workers, progress)], _A_DAY, silent=False)
        if found is None:
            raise UserError(f"The audit of '{slug}' ended without a result: run it alone, and look for its output.")
        if "error" in found:
            raise UserError(found["error"])
        tasks += [_result(fields) for fields in found["tasks"]]
    return Report(tasks)


def _unit(slug: str, workers: int, progress: Callable[[TaskResult], None]) -> dict[str, Any]:
    """Audit one unit, in a fork; what is wrong crosses as text."""
    from kicourse.authoring.rehearsal import Rehearsal

    try:
        source, checks = read(syllabus.course().unit(slug)), unit_checks(slug)
        if found := list(problems(source, checks)):
            raise RefusedError(found)
        results = []
        for result in Rehearsal(source, checks, workers).tasks():
            progress(result)
            results.append(asdict(result))
        return {"tasks": results}
    except UserError as error:
        return {"error": str(error)}


def _result(fields: dict[str, Any]) -> TaskResult:
    return TaskResult(**fields | {"survivors": [Survivor(**survivor) for survivor in fields["survivors"]]})


def _line(result: TaskResult) -> str:
    return (
        f"{result.unit}.{result.task}: {result.tried} tried, {len(result.survivors)} survived, {result.seconds:.0f} s"
    )
