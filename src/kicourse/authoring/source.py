"""A unit's source: the text file that its author writes, as cells."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jupytext

from kicourse import checks, syllabus
from kicourse.checks import Check
from kicourse.errors import UsageError, UserError
from kicourse.syllabus import Unit

OPTIONS = frozenset({"task", "check", "manual", "points", "tags"})
_CELL_START = re.compile(r"#\s*%%(\s|$)")


class RefusedError(UserError):
    """A source that cannot become a notebook. One line for each problem, each with its file and line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Cell:
    """One cell of a source, with what its first line says about it.

    `place` is where it stands, as in "course/mini_gpt.py:120".
    """

    kind: str
    text: str
    place: str
    options: Mapping[str, Any]

    @property
    def task(self) -> str | None:
        """The task that this cell's learner writes."""
        return self.options.get("task")

    @property
    def check(self) -> str | None:
        """The task that this cell checks."""
        return self.options.get("check")

    @property
    def manual(self) -> str | None:
        """The name of a text that a person grades, or the learner herself."""
        return self.options.get("manual")

    @property
    def points(self) -> float:
        """What a manual cell is worth; a check's points come from the check."""
        return float(self.options.get("points", 0))

    @property
    def tags(self) -> list[str]:
        """Jupyter's cell tags."""
        return list(self.options.get("tags", ()))

    @property
    def demo(self) -> bool:
        """Whether the cell only demonstrates: grading skips it."""
        return "demo" in self.tags

    @cached_property
    def python(self) -> str:
        """The cell's code as plain Python: IPython's magics and shell escapes become calls."""
        try:
            ast.parse(self.text)
        except SyntaxError:
            from IPython.core.inputtransformer2 import TransformerManager

            return str(TransformerManager().transform_cell(self.text))
        return self.text

    @cached_property
    def tree(self) -> ast.Module:
        """The cell's code, parsed."""
        return ast.parse(self.python)


@dataclass(frozen=True)
class Source:
    """A unit's source."""

    unit: Unit
    cells: tuple[Cell, ...]

    @property
    def code(self) -> tuple[Cell, ...]:
        """The code cells, in order."""
        return tuple(cell for cell in self.cells if cell.kind == "code")


def read(unit: Unit) -> Source:
    """Read a unit's source.

    Raises UsageError if there is none, and RefusedError for an unknown cell option and for code that is not Python.
    """
    name = _relative(unit.source)
    if not unit.source.is_file():
        raise UsageError(f"The unit '{unit.slug}' has no source: write {name} first.")
    text = unit.source.read_text(encoding="utf-8")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if _CELL_START.match(line)]
    cells = jupytext.reads(text, fmt="py:percent").cells
    if len(cells) != len(lines):
        raise RefusedError([f"{name}: every cell must start with a line '# %%', the first one too."])
    found = tuple(
        Cell(cell.cell_type, cell.source, f"{name}:{line}", _options(cell.metadata))
        for cell, line in zip(cells, lines, strict=True)
    )
    if problems := [problem for cell in found for problem in (*_unknown_options(cell), *_syntax(cell))]:
        raise RefusedError(problems)
    return Source(unit, found)


def unit_checks(slug: str) -> dict[str, Check]:
    """The checks of a unit's module, by the name they have there."""
    try:
        return checks.by_name(slug)
    except ModuleNotFoundError as error:
        if error.name != f"kicourse.checks.{slug}":
            raise
        raise RefusedError([f"The unit '{slug}' has no checks: write src/kicourse/checks/{slug}.py."]) from None


def _options(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the author wrote in a cell's first line, without jupytext's own notes about blank lines."""
    return {name: value for name, value in metadata.items() if not name.startswith("lines_to_")}


def _unknown_options(cell: Cell) -> list[str]:
    return [
        f"{cell.place}: a cell cannot have '{option}'; it can have {', '.join(sorted(OPTIONS))}."
        for option in sorted(set(cell.options) - OPTIONS)
    ]


def _syntax(cell: Cell) -> list[str]:
    if cell.kind != "code":
        return []
    try:
        ast.parse(cell.python)
    except SyntaxError as error:
        return [f"{cell.place}: this cell is not Python: {error.msg}."]
    return []


def _relative(path: Path) -> str:
    return path.relative_to(syllabus.course_root()).as_posix()
