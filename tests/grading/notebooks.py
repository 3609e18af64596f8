"""Notebooks to grade: of a toy unit, for what only looks at them, and of `first_call`, for what runs them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from kicourse.syllabus import course
from tests.grading.class_room import UNIT

STUB = "    # YOUR CODE HERE\n    raise NotImplementedError()"
UNTOUCHED = {"double": f"def double(x):\n{STUB}", "shout": f"def shout(x):\n{STUB}"}
SOLVED = {
    "double": "def double(x):\n    return [2 * y for y in x] if isinstance(x, list) else 2 * x",
    "shout": "def shout(x):\n    return x.upper()",
}
HALF = SOLVED | {"double": "def double(x):\n    return 2 * x"}  # a list is repeated, not doubled item by item
POINTS = {"double": 7.5, "shout": 2.5}


def code(source: str, *tags: str, **nbgrader: Any) -> Any:
    """Return a code cell; keywords become its nbgrader metadata."""
    metadata: dict[str, Any] = {"tags": list(tags)} if tags else {}
    if nbgrader:
        usual = {"grade": False, "locked": False, "solution": False, "task": False, "schema_version": 3}
        metadata["nbgrader"] = usual | nbgrader
    return new_code_cell(source, metadata=metadata)


def unit(answers: dict[str, str], *more: Any, lang: str = "en") -> Any:
    """Return a notebook of the toy unit: set-up, more cells, then each task with its check cell."""
    cells = [code("from kicourse.checks import maintenance as check", locked=True, grade_id="setup"), *more]
    for task, answer in answers.items():
        cells.append(code(answer, solution=True, grade_id=task))
        graded = {"grade": True, "locked": True, "points": POINTS[task]}
        cells.append(code(f"check.{task}({task})", grade_id=f"{task}-check", **graded))
    made = new_notebook(cells=cells)
    made.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python 3"}
    made.metadata.kicourse = {"unit": "maintenance", "lang": lang, "version": "0.1.0"}
    return made


def exercise(
    answers: Mapping[str, str] | None = None,
    own: Sequence[tuple[str, str]] = (),
    *,
    without: Sequence[str] = (),
    language: str = "en",
) -> Any:
    """Return the exercise of `first_call` with these tasks filled in.

    `own` are a learner's cells, each behind the cell it names; `without` names cells that were deleted.
    """
    notebook = nbformat.read(course().unit(UNIT).exercise(language), 4)
    cells = []
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = (answers or {}).get(name, cell.source)
        cells += [] if name in without else [cell]
        cells += [new_code_cell(source) for place, source in own if place == name]
    notebook.cells = cells
    return notebook


def write(path: Path, notebook: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path
