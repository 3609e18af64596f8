"""The liars of tests/liars.py on every task of every unit, as grading meets them: in a process of their own.

With them come those who rewrite the helper code that runs beside an answer there.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from kicourse import checks
from kicourse.grading import sandbox
from kicourse.grading.job import Job, Outcome
from kicourse.grading.pool import LocalPool
from kicourse.syllabus import course
from tests import liars
from tests.hostile.corpus.attack import ANSWERS

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(sandbox.unavailable()), reason=sandbox.unavailable()),
    pytest.mark.xdist_group("liars"),  # not two at once: each takes both cores
]

_SOURCE = Path(liars.__file__).read_text(encoding="utf-8")
_GPT = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "none"}
"""An address where nobody answers: liars ask nothing."""

_FORGERS = {
    "helpers that say nothing": ("Yes()", "constant(None)"),
    "helpers that say True": ("Yes()", "constant(True)"),
    "helpers that return what they get": ("echo", "echo"),
    "helpers that make yes-objects": ("constant(Yes())", "constant(Yes())"),
}
"""What is handed in for every task, and what takes the place of every helper (answers/probes.py)."""
_FORGE = """
from kicourse.answers import probes
probes.PROBES.update(dict.fromkeys(probes.PROBES, {helper}))
"""


def _expressions() -> tuple[str, dict[str, str]]:
    """Return the source before the table of liars, and each liar as an expression."""
    table = next(node for node in ast.parse(_SOURCE).body if isinstance(node, ast.AnnAssign))
    assert isinstance(table.value, ast.BinOp)
    named = table.value.left
    assert isinstance(named, ast.Dict)
    known = {
        ast.literal_eval(key): str(ast.get_source_segment(_SOURCE, value))
        for key, value in zip(named.keys, named.values, strict=True)
        if key is not None
    }
    others = {name: name for name in liars.LIARS if name not in known and _is_there(name)}
    return "\n".join(_SOURCE.splitlines()[: table.lineno - 1]), {**known, **others}


def _is_there(name: str) -> bool:
    """Whether a liar is there where a submission runs: `kicourse.checks._` is not, nor what modules below it hold."""
    return name.count(".") < 3 and not name.endswith("._")


def _jobs(unit: str) -> Iterator[Job]:
    before, expressions = _expressions()
    cells = {name: (before, expression) for name, expression in expressions.items()}
    cells |= {name: (before + _FORGE.format(helper=helper), answer) for name, (answer, helper) in _FORGERS.items()}
    release = course().unit(unit).exercise("en").read_text(encoding="utf-8")
    for name, (first, expression) in cells.items():
        notebook = nbformat.reads(release, 4)
        tasks = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("solution")]
        for cell in tasks:
            task = cell.metadata.nbgrader.grade_id
            cell.source = f"{ANSWERS.get(task, task)} = {expression}"
        notebook.cells.insert(notebook.cells.index(tasks[0]), new_code_cell(first, id="liars"))
        yield Job(
            student=name,
            unit=unit,
            language="en",
            notebook=nbformat.writes(notebook).encode(),
            seeds=dict.fromkeys(checks.load(unit), 17),
            limits=course().unit(unit).limits,
        )


@pytest.mark.parametrize("unit", [unit.slug for unit in course().finished])
def test_liars_earn_nothing(unit: str) -> None:
    with LocalPool(2, _GPT) as pool:
        outcomes = list(pool.run(_jobs(unit)))
    assert {outcome.student for outcome in outcomes} == {*filter(_is_there, liars.LIARS), *_FORGERS}
    earned = [(one.student, task.task, task.points) for one in outcomes for task in one.tasks if task.points]
    assert earned == []
    # Each was tried: a cell that failed by itself would prove nothing.
    assert [(one.student, one.status) for one in outcomes if one.status != "graded"] == []
    assert [(one.student, error) for one in outcomes for error in _errors(one)] == []


def _errors(outcome: Outcome) -> list[str]:
    cells = json.loads(outcome.notebook)["cells"]
    return [
        f"{output['ename']}: {output['evalue']}"
        for cell in cells
        if cell["cell_type"] == "code" and not cell["metadata"].get("nbgrader", {}).get("grade")
        for output in cell["outputs"]
        if output["output_type"] == "error"
    ]
