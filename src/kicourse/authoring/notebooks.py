"""A unit's source as notebooks: the solution notebook is nbgrader's "source", the exercise its "release"."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.preprocessors import ClearOutput, ClearSolutions, ComputeChecksums, LockCells

from kicourse import __version__
from kicourse.authoring import prose
from kicourse.authoring.source import Cell, Source
from kicourse.checks import Check
from kicourse.language import SOURCE

SETUP = "setup"
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
_LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"}


def solution(
    source: Source, checks: Mapping[str, Check], language: str, translate: Callable[[str], str]
) -> NotebookNode:
    """Return the notebook with its solutions, in the language that `translate` speaks."""
    ids = _Ids()
    cells = []
    for cell in source.cells:
        metadata: dict[str, Any] = {"tags": cell.tags} if cell.tags else {}
        if graded := _nbgrader(cell, source, checks):
            metadata["nbgrader"] = graded
        if cell.kind == "markdown":
            text = cell.text if language == SOURCE else prose.translated(cell.text, translate)
            cells.append(new_markdown_cell(text, id=ids.of(cell), metadata=metadata))
        else:
            cells.append(new_code_cell(cell.text, id=ids.of(cell), metadata=metadata))
    about = {"lang": language, "unit": source.unit.slug, "version": __version__}
    return new_notebook(cells=cells, metadata={"kernelspec": _KERNEL, "kicourse": about, "language_info": _LANGUAGE})


def exercise(solved: NotebookNode) -> NotebookNode:
    """Return what learners open: what nbgrader's own Generate makes of the solution notebook."""
    notebook = deepcopy(solved)
    resources: dict[str, Any] = {}
    for step in (LockCells(), ClearSolutions(), ClearOutput(), ComputeChecksums()):
        notebook, resources = step.preprocess(notebook, resources)
    return notebook


def render(notebook: NotebookNode) -> str:
    """Return a notebook as the text of its file, always the same for the same notebook."""
    nbformat.validate(notebook)
    return str(nbformat.writes(notebook)).rstrip("\n") + "\n"


def _nbgrader(cell: Cell, source: Source, checks: Mapping[str, Check]) -> dict[str, Any] | None:
    """The metadata that nbgrader needs for a cell, if any: derived, never typed."""
    fields: dict[str, Any]
    if cell.task:
        fields = {"grade": False, "solution": True, "locked": False}
    elif cell.check:
        fields = {"grade": True, "solution": False, "locked": True, "points": checks[cell.check].points}
    elif cell.manual:
        fields = {"grade": True, "solution": True, "locked": False, "points": cell.points}
    elif cell is source.code[0]:
        fields = {"grade": False, "solution": False, "locked": True}
    else:
        return None
    return fields | {"grade_id": _own_name(cell) or SETUP, "schema_version": 3, "task": False}


def _own_name(cell: Cell) -> str | None:
    """The name of a cell that an author has named: it is its grade_id and its cell id."""
    return f"{cell.check}-check" if cell.check else cell.task or cell.manual


class _Ids:
    """Cell ids that stay the same from build to build and from language to language."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def of(self, cell: Cell) -> str:
        name = _own_name(cell)
        if name:
            return name
        digest = hashlib.sha256(f"{cell.kind}\n{cell.text}".encode()).hexdigest()[:12]
        self._seen[digest] += 1
        count = self._seen[digest]
        return digest if count == 1 else f"{digest}-{count}"
