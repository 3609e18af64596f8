"""From a job to the cells that are played, and from what came of them to the graded notebook."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from kicourse import checks
from kicourse.checks.render import STATUS, frame
from kicourse.grading.job import Job, Outcome, Status
from kicourse.grading.rebuild import harmless_markdown, is_demo
from kicourse.grading.report import TaskReport, read_task
from kicourse.grading.verdicts import without_verdict
from kicourse.language import _, translate

_CHECK = "-check"
_STOPPED = _("The check was not run, since an earlier cell stopped the notebook.")
_LACKING = _("The notebook lacks the check cell of this task, `{cell}`.")
_NOT_GRADED = _("Not graded")


def code_cells(job: Job) -> list[dict[str, Any]]:
    """Return the cells of a job that are played: place, source, grade_id, and the task that it checks, if any."""
    return [
        {
            "number": number,
            "source": "".join(cell["source"]),
            "name": str(cell["metadata"].get("nbgrader", {}).get("grade_id", "")),
            "task": _task_of(cell),
        }
        for number, cell in enumerate(json.loads(job.notebook)["cells"])
        if cell["cell_type"] == "code" and not is_demo(cell)
    ]


def _task_of(cell: Mapping[str, Any]) -> str | None:
    """Return the task that a locked check cell decides; the notebook is a rebuilt one, so its metadata are true."""
    about = cell["metadata"].get("nbgrader", {})
    grade_id = str(about.get("grade_id", ""))
    is_check = about.get("grade") and about.get("locked") and grade_id.endswith(_CHECK)
    return grade_id.removesuffix(_CHECK) if is_check else None


def assemble(
    job: Job,
    judged: Mapping[str, Mapping[str, Any]],
    outputs: Mapping[int, list[dict[str, Any]]],
    skipped: Mapping[int, str],
) -> tuple[bytes, tuple[TaskReport, ...]]:
    """Return the graded notebook as JSON, and the report of each task in the order of the unit's checks."""
    notebook = json.loads(job.notebook)
    reports: dict[str, TaskReport] = {}
    known = checks.load(job.unit)
    words = partial(translate, "kicourse", code=job.language)
    for number, cell in enumerate(notebook["cells"]):
        cell["source"] = "".join(cell["source"]).splitlines(keepends=True)  # as Jupyter writes it
        if cell["cell_type"] != "code":
            continue
        shown = list(outputs.get(number, ()))
        task = _task_of(cell)
        if task is not None and task in known:
            verdict = judged.get(task)
            why = skipped.get(number) or next(iter(skipped.values()), words(_STOPPED))
            reports[task] = read_task(verdict["report"]) if verdict else without_verdict(known[task], "error", why)
            shown = [_result(reports[task], verdict, words), *_printed(shown, words)]
        elif number in skipped:
            shown.append(_error("NotRun", skipped[number]))
        cell["outputs"], cell["execution_count"] = shown, None
    tasks = tuple(
        reports.get(task) or without_verdict(check, "error", words(_LACKING).format(cell=f"{task}{_CHECK}"))
        for task, check in known.items()
    )
    return json.dumps(notebook, ensure_ascii=False, indent=1).encode(), tasks


def ungraded(job: Job, status: Status, message: str) -> Outcome:
    """Return the outcome of a submission that was not run: no points, and the reason at the top and in each check."""
    known = checks.load(job.unit)
    notebook = json.loads(job.notebook)
    words = partial(translate, "kicourse", code=job.language)
    for cell in notebook["cells"]:
        task = _task_of(cell) if cell["cell_type"] == "code" else None
        if task in known:
            cell["outputs"] = [_result(without_verdict(known[task], "error", message), None, words)]
    why = f"**{words(_NOT_GRADED)}**\n\n{harmless_markdown(message)}"
    notebook["cells"].insert(0, {"cell_type": "markdown", "id": "not-graded", "metadata": {}, "source": why})
    tasks = tuple(without_verdict(check, "error", message) for check in known.values())
    content = json.dumps(notebook, ensure_ascii=False, indent=1).encode()
    return Outcome(job.student, job.unit, status, tasks, content, message=message, given_up=job.given_up)


def _result(report: TaskReport, verdict: Mapping[str, Any] | None, words: Callable[[str], str]) -> dict[str, Any]:
    """Return a check cell's result: a bare number is what nbgrader takes as points, the HTML is for people."""
    html = (verdict or {}).get("html") or frame(report.message or words(STATUS[report.status]), report.status)
    data = {"text/plain": f"{report.points:g}", "text/html": html}
    return {"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": None}


def _printed(shown: list[dict[str, Any]], words: Callable[[str], str]) -> list[dict[str, Any]]:
    """Return what a check's cell showed beside its result: plain output, since stderr or an error would cost points.

    It says whose it is, and holds no pictures: below a verdict, one could be drawn to look like another.
    """
    text = "".join(map(_as_text, shown))
    label = words(_("Printed by the submission:"))
    return [{"output_type": "stream", "name": "stdout", "text": f"{label}\n{text}"}] if text else []


def _as_text(output: dict[str, Any]) -> str:
    if output["output_type"] == "error":
        return f"{output['ename']}: {output['evalue']}\n"
    return str(output["text"]) if output["output_type"] == "stream" else f"{output['data']['text/plain']}\n"


def _error(name: str, value: str) -> dict[str, Any]:
    # Pages show the traceback alone.
    return {"output_type": "error", "ename": name, "evalue": value, "traceback": [f"{name}: {value}"]}
