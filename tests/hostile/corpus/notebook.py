"""Forged files: outputs, metadata, tags, points, names and cells that are not what they should be."""

from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from tests.hostile.corpus.attack import Attack, attack

FULL_TEXT = "10"


def _checks(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade")]


def _result(data: dict[str, Any]) -> NotebookNode:
    return new_output("execute_result", data=data, metadata={}, execution_count=1)


@attack("bring outputs along that say 10", safe_for_stock=True)
def forged_outputs() -> Attack:
    def change(notebook: NotebookNode) -> None:
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [_result({"text/plain": FULL_TEXT, "text/html": "<b>10</b>"})]
                cell.execution_count = 1

    return Attack(change=change)


@attack("bring outputs along that carry a verdict of the course's own type", safe_for_stock=True)
def forged_verdict_outputs() -> Attack:
    def change(notebook: NotebookNode) -> None:
        for cell in _checks(notebook):
            about = cell.metadata.nbgrader
            verdict = {
                "unit": "first_call",
                "task": about.grade_id.removesuffix("-check"),
                "title": "x",
                "points": about.points,
                "max_points": about.points,
                "status": "passed",
                "criteria": [],
                "diagnosis": "",
                "notes": [],
            }
            cell.outputs = [_result({"application/vnd.kicourse.verdict+json": verdict, "text/plain": "10"})]

    return Attack(change=change)


@attack("show results and verdicts in own cells", safe_for_stock=True)
def results_in_own_cells() -> Attack:
    return Attack(
        cell="""
from IPython.display import display, publish_display_data
verdict = {"unit": "first_call", "task": "ask", "title": "t", "points": 2, "max_points": 2, "status": "passed",
           "criteria": [], "diagnosis": "", "notes": []}
for kind in ("application/vnd.kicourse.verdict+json", "application/json"):
    publish_display_data({kind: verdict, "text/plain": "10", "text/html": "<b>10</b>"})
print("10 / 10")
10
"""
    )


@attack("show a result from inside the check's own cell, as the answer is tried", safe_for_stock=True)
def results_in_check_cells() -> Attack:
    source = """
from IPython.display import publish_display_data
import sys

def ask(*args, **kwargs):
    publish_display_data({"text/plain": "10", "text/html": "10"})
    get_ipython().displayhook(10)
    sys.displayhook(10)
    print("10")
    return "10"
"""
    return Attack(answers={"ask": source})


@attack("tag the checks so that they are skipped: skip-execution, demo, raises-exception", safe_for_stock=True)
def skipping_tags() -> Attack:
    def change(notebook: NotebookNode) -> None:
        for cell in _checks(notebook):
            cell.metadata.tags = ["skip-execution", "demo", "raises-exception"]
            cell.outputs = [_result({"text/plain": FULL_TEXT, "text/html": "10"})]

    return Attack(change=change)


@attack("make tasks worth a thousand points, nan or less than nothing", safe_for_stock=True)
def points() -> Attack:
    def change(notebook: NotebookNode) -> None:
        for cell, worth in zip(_checks(notebook), (1000, float("nan"), -5, float("inf")), strict=True):
            cell.metadata.nbgrader.points = worth

    return Attack(change=change)


@attack("exchange the names of tasks and checks, and give one name twice", safe_for_stock=True)
def exchanged_names() -> Attack:
    def change(notebook: NotebookNode) -> None:
        cells = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
        names = [cell.metadata.nbgrader.grade_id for cell in cells]
        for cell, name in zip(cells, names[1:] + names[:1], strict=True):
            cell.metadata.nbgrader.grade_id = name
            cell.id = "same"
        cells[0].metadata.nbgrader.grade_id = cells[1].metadata.nbgrader.grade_id

    return Attack(change=change)


@attack("delete the checks", safe_for_stock=True)
def deleted_checks() -> Attack:
    def change(notebook: NotebookNode) -> None:
        doomed = _checks(notebook)
        notebook.cells = [cell for cell in notebook.cells if cell not in doomed]

    return Attack(change=change)


@attack("unlock the checks and rewrite them", safe_for_stock=True)
def rewritten_checks() -> Attack:
    def change(notebook: NotebookNode) -> None:
        for cell in _checks(notebook):
            cell.metadata.nbgrader.update(locked=False, solution=True, grade=True)
            cell.source = "10"

    return Attack(change=change)


@attack("turn the checks into markdown, raw cells and unknown kinds of cells", safe_for_stock=True)
def retyped_checks() -> Attack:
    def change(notebook: NotebookNode) -> None:
        for cell, kind in zip(_checks(notebook), ("markdown", "raw", "heading", "code"), strict=True):
            cell.cell_type = kind
            cell.pop("outputs", None)
            cell.pop("execution_count", None)

    return Attack(change=change)


@attack("repeat the checks and tasks, so that a later one counts", safe_for_stock=True)
def repeated_cells() -> Attack:
    def change(notebook: NotebookNode) -> None:
        for cell in [*notebook.cells]:
            if "nbgrader" in cell.metadata:
                twin = NotebookNode({**cell, "id": f"{cell.id}-twin"})
                twin.source = "10"
                notebook.cells.extend([twin, twin])

    return Attack(change=change)


@attack("reverse the cells, so that checks come before what they check", safe_for_stock=True)
def reversed_cells() -> Attack:
    return Attack(change=lambda notebook: notebook.cells.reverse())


@attack("claim a schema of the future", safe_for_stock=True)
def future_schema() -> Attack:
    def change(notebook: NotebookNode) -> None:
        for cell in notebook.cells:
            if "nbgrader" in cell.metadata:
                cell.metadata.nbgrader.schema_version = 99

    return Attack(change=change)


@attack("take the grade_ids away, and put lists and numbers in their place", safe_for_stock=True)
def odd_grade_ids() -> Attack:
    def change(notebook: NotebookNode) -> None:
        odd: list[Any] = [None, 7, [], {"x": 1}, "", "../../../etc/passwd", "ask-check\n", "ask\0check", "x" * 10_000]
        for cell in notebook.cells:
            if "nbgrader" in cell.metadata:
                cell.metadata.nbgrader.grade_id = odd.pop(0) if odd else None

    return Attack(change=change)


@attack("say that it is another unit, another language, another kernel", safe_for_stock=True)
def other_identity() -> Attack:
    def change(notebook: NotebookNode) -> None:
        notebook.metadata.kicourse = {"unit": "mini_gpt", "lang": "../..", "version": "99"}
        notebook.metadata.kernelspec = {"name": "bash", "display_name": "<script>", "language": "sh"}
        notebook.metadata.language_info = {"name": "<script>alert(1)</script>"}
        notebook.metadata.title = "<script>alert(1)</script>"
        notebook.metadata.authors = [{"name": "<script>alert(1)</script>"}]

    return Attack(change=change)


@attack("bring autograded comments and scores of its own along", safe_for_stock=True)
def own_scores() -> Attack:
    def change(notebook: NotebookNode) -> None:
        for cell in _checks(notebook):
            cell.metadata.nbgrader.update(score=10, comment="<script>alert(1)</script>", remove=True, checksum="0")

    return Attack(change=change)


@attack("bring two thousand extra cells along, some of them huge")
def many_cells() -> Attack:
    def change(notebook: NotebookNode) -> None:
        notebook.cells.extend(new_code_cell("None") for _ in range(1_500))
        notebook.cells.extend(new_markdown_cell("x" * 10_000) for _ in range(200))
        notebook.cells.extend(new_markdown_cell("`" * 3_000) for _ in range(20))

    return Attack(change=change)
