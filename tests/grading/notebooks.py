"""Tiny notebooks of the kind that `kicourse build` makes, for trying what runs notebooks."""

from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

SETUP = "from kicourse.checks.verdict import Verdict, status_of\n"

STUB = "# YOUR CODE HERE\nraise NotImplementedError()"

CHECK = """
points = 5.0 * (answer() > 0) + 2.5 * (answer() > 1)
Verdict("maintenance", "{task}", "A title", points, 7.5, status_of(points, 7.5, True))
"""


def code(source: str, *tags: str, **nbgrader: Any) -> Any:
    """Return a code cell; keywords become its nbgrader metadata."""
    metadata: dict[str, Any] = {"tags": list(tags)} if tags else {}
    if nbgrader:
        metadata["nbgrader"] = {"grade": False, "locked": False, "solution": False, "schema_version": 3, **nbgrader}
    return new_code_cell(source, metadata=metadata)


def task_cell(name: str, source: str) -> Any:
    return code(source, solution=True, grade_id=name, task=False)


def check_cell(name: str, source: str, points: float = 7.5) -> Any:
    return code(source, grade=True, locked=True, grade_id=f"check_{name}", points=points, task=False)


def setup_cell() -> Any:
    return code(SETUP, locked=True, grade_id="setup", task=False)


def notebook(*cells: Any, unit: str = "maintenance", lang: str = "en") -> Any:
    made = new_notebook(cells=list(cells))
    made.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python 3"}
    made.metadata.kicourse = {"unit": unit, "lang": lang, "version": "0.1.0"}
    return made


def write(path: Path, made: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(made, path)
    return path
