"""What a unit must be before it is built. Every problem is one line: where it is, and what to do."""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping

from kicourse.authoring.names import names
from kicourse.authoring.source import Cell, Source
from kicourse.checks import Check

BEGIN = "### BEGIN SOLUTION"
END = "### END SOLUTION"
POINTS = 10


def problems(source: Source, checks: Mapping[str, Check]) -> Iterator[str]:
    """Every reason to refuse a unit, as lines for its author."""
    yield from _first_cell(source)
    yield from _pairs(source)
    yield from _module(source, checks)
    for cell in source.cells:
        yield from _cell(cell)
    yield from _demo_names(source)
    yield from _points(source, checks)


def setup_code(slug: str) -> str:
    """The first code cell that every unit must have."""
    return f'import kicourse\nfrom kicourse.checks import {slug} as check\n\ntext = kicourse.start("{slug}")'


def _first_cell(source: Source) -> Iterator[str]:
    wanted = setup_code(source.unit.slug)
    if not source.code:
        yield f"course/{source.unit.slug}.py: there is no code cell; the first one must be:\n{wanted}"
    elif ast.dump(source.code[0].tree) != ast.dump(ast.parse(wanted)):
        yield f"{source.code[0].place}: the first code cell must be exactly:\n{wanted}"


def _pairs(source: Source) -> Iterator[str]:
    """Each task is there once, and so is its check, somewhere after it."""
    tasks = [cell.task for cell in source.cells if cell.task]
    seen: set[str] = set()
    checked: set[str] = set()
    for cell in source.cells:
        if cell.task:
            if cell.task in seen:
                yield f"{cell.place}: the task '{cell.task}' is here a second time."
            seen.add(cell.task)
        if cell.check:
            if cell.check not in tasks:
                yield f"{cell.place}: there is no task '{cell.check}' to check: mark its cell task=\"{cell.check}\"."
            elif cell.check not in seen:
                yield f"{cell.place}: the check of '{cell.check}' stands before its task."
            if cell.check in checked:
                yield f"{cell.place}: the check of '{cell.check}' is here a second time."
            checked.add(cell.check)
    for cell in source.cells:
        if cell.task and cell.task not in checked:
            yield f"{cell.place}: the task '{cell.task}' has no check cell: add # %% check=\"{cell.task}\"."


def _module(source: Source, checks: Mapping[str, Check]) -> Iterator[str]:
    slug = source.unit.slug
    for name, check in checks.items():
        if name != check.task or check.unit != slug:
            yield f'src/kicourse/checks/{slug}.py: \'{name}\' must be Check("{slug}", "{name}").'
    known = {name for cell in source.cells for name in (cell.task, cell.check)}
    for cell in source.cells:
        if cell.check and cell.check not in checks:
            yield f"{cell.place}: src/kicourse/checks/{slug}.py has no check '{cell.check}'."
    for name in sorted(checks.keys() - known):
        yield f"course/{slug}.py: the check '{name}' of src/kicourse/checks/{slug}.py has no task."


def _cell(cell: Cell) -> Iterator[str]:
    if sum(1 for role in (cell.task, cell.check, cell.manual, cell.demo or None) if role) > 1:
        yield f"{cell.place}: a cell is one of task, check, manual and demo, not several."
    if cell.manual and cell.kind != "markdown":
        yield f'{cell.place}: a manual cell is a markdown cell: # %% [markdown] manual="{cell.manual}".'
    if (cell.task or cell.check) and cell.kind != "code":
        yield f"{cell.place}: a task or check cell is a code cell."
    elif cell.task:
        yield from _markers(cell)
    elif cell.check and not _is_check_call(cell):
        yield f"{cell.place}: a check cell is one call: check.{cell.check}(...)."
    if not cell.task and not cell.manual and (BEGIN in cell.text or END in cell.text):
        yield f'{cell.place}: solution markers belong into a cell with task="...".'


def _markers(cell: Cell) -> Iterator[str]:
    """Begin and end take turns, and something is between them."""
    kinds = [line.strip() for line in cell.text.splitlines() if line.strip() in (BEGIN, END)]
    loose = [line for line in cell.text.splitlines() if "SOLUTION" in line and line.strip() not in (BEGIN, END)]
    if not kinds:
        yield f"{cell.place}: the task '{cell.task}' has no solution: put it between '{BEGIN}' and '{END}'."
    elif kinds != [BEGIN, END] * (len(kinds) // 2):
        yield f"{cell.place}: '{BEGIN}' and '{END}' must take turns."
    if loose:
        yield f"{cell.place}: write the markers exactly as '{BEGIN}' and '{END}', alone on their lines."


def _is_check_call(cell: Cell) -> bool:
    match cell.tree.body:
        case [ast.Expr(ast.Call(ast.Attribute(ast.Name("check"), name)))]:
            return name == cell.check
    return False


def _demo_names(source: Source) -> Iterator[str]:
    """Grading skips demonstrations, so nothing else may need what only they define.

    A function may stand above what it uses: a name that no other cell defines is a demonstration's wherever it is used.
    """
    of_cells = [(cell, names(cell.python)) for cell in source.code]
    anywhere = frozenset[str]().union(*(found.defined for cell, found in of_cells if not cell.demo))
    shown = {name: cell for cell, found in of_cells if cell.demo for name in found.defined - anywhere}
    defined: set[str] = set()
    for cell, found in of_cells:
        if cell.demo:
            shown |= dict.fromkeys(found.defined, cell)
            continue
        for name in sorted((found.needed & shown.keys()) - defined):
            yield (
                f"{cell.place}: uses '{name}', which only the demo cell at {shown[name].place} defines: "
                "define it in a cell without the tag."
            )
        defined |= found.defined


def _points(source: Source, checks: Mapping[str, Check]) -> Iterator[str]:
    worth = Counter({name: check.points for name, check in checks.items()})
    worth.update({cell.manual: cell.points for cell in source.cells if cell.manual})
    if sum(worth.values()) != POINTS:
        listed = ", ".join(f"{name} {points:g}" for name, points in worth.items()) or "nothing"
        yield f"course/{source.unit.slug}.py: the points must sum to {POINTS}, and are {listed}."
