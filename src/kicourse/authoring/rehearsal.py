"""The audit's stage: a unit's solution is played cell by cell, and each task is tried with other code in its place."""

import ast
import importlib
import io
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import Any

from kicourse.authoring import forks
from kicourse.authoring.mutants import Mutant, mutants
from kicourse.authoring.results import Survivor, TaskResult
from kicourse.authoring.source import Cell, Source
from kicourse.checks import Check
from kicourse.checks.check import Equivalent, Misconception
from kicourse.checks.verdict import Verdict
from kicourse.errors import UserError

REFERENCE_SECONDS = 900.0
_SLACK = 5.0
_ONE_THREAD = {
    # Forks of a process in which a library has started threads can hang for good.
    **dict.fromkeys(("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "agg",
}


class Rehearsal:
    """Plays a unit's cells in this process, and other versions of its tasks in forks of it."""

    def __init__(self, source: Source, checks: dict[str, Check], workers: int) -> None:
        os.environ.update(_ONE_THREAD)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        for module in (*source.unit.preload, *source.unit.player_preload):
            # Once here, instead of once in each fork.
            importlib.import_module(module)
        self.source, self.checks, self.workers = source, checks, workers
        self.shell = _shell()

    def tasks(self) -> Iterator[TaskResult]:
        """Audit each task in turn. Raises UserError if a cell of the solution fails, or its check refuses it."""
        for place, cell in enumerate(self.source.code):
            if cell.task:
                yield self._audit(cell, self.source.code[place + 1 :])
            if not cell.demo and not cell.check:
                self._play(cell.text, cell.place)

    def _audit(self, task: Cell, following: tuple[Cell, ...]) -> TaskResult:
        """Try the reference solution first, then everything that is wrong on purpose."""
        start = time.monotonic()
        name, original = task.task or "", task.text
        check = self.checks[name]
        noticed = partial(self._noticed, before=_before_check(following, name), check=_check_cell(following, name))
        limit = self._reference_seconds(task, partial(noticed, original)) * 5 + _SLACK
        changed, wrong = mutants(original), list(check.misconceptions)
        jobs: list[Callable[[], list[str]]] = [partial(noticed, mutant.source) for mutant in changed]
        jobs += [partial(_noticed_in, check, misconception) for misconception in wrong]
        alive = {number for number, criteria in forks.run(jobs, limit, self.workers) if criteria == []}
        holes, marked, unused = _marked(
            [_survivor(mutant, original) for number, mutant in enumerate(changed) if number in alive],
            check.equivalents,
        )
        holes += [_believed(one) for number, one in enumerate(wrong, len(changed)) if number in alive]
        counts = len(jobs), len(jobs) - len(alive)
        return TaskResult(check.unit, name, *counts, marked, holes, unused, time.monotonic() - start)

    def _noticed(self, version: str, before: list[Cell], check: Cell) -> list[str]:
        """Play a version of a task's cell and what stands before its check; return the criteria that fail."""
        _stop_at_the_first_failure(self.checks[check.check or ""])
        self._play(version, check.place)
        for cell in before:
            self._play(cell.text, cell.place)
        return _failing(eval(_run_call(check), self.shell.user_ns))

    def _reference_seconds(self, task: Cell, job: Callable[[], list[str]]) -> float:
        """How long the reference solution takes; raises UserError if it is not given full marks."""
        start = time.monotonic()
        [(_, failing)] = forks.run([job], REFERENCE_SECONDS)
        seconds = time.monotonic() - start
        if failing is None:
            raise UserError(f"{task.place}: the reference solution of '{task.task}' raises, or does not end.")
        if failing:
            criteria = ", ".join(failing)
            raise UserError(f"{task.place}: the reference solution of '{task.task}' fails its own check: {criteria}.")
        return seconds

    def _play(self, code: str, place: str) -> None:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            result = self.shell.run_cell(code)
        if error := result.error_before_exec or result.error_in_exec:
            raise UserError(f"{place}: this cell of the solution raises {type(error).__name__}: {error}")


def _shell() -> Any:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Shell(InteractiveShell):
        def enable_gui(self, gui: str | None = None) -> None:
            """There is none; %matplotlib asks for it all the same."""

    return Shell(config=Config(HistoryManager={"enabled": False}))


def _check_cell(following: tuple[Cell, ...], task: str) -> Cell:
    return next(cell for cell in following if cell.check == task)


def _before_check(following: tuple[Cell, ...], task: str) -> list[Cell]:
    """The code between a task and its check that the check may need."""
    between = takewhile(lambda cell: cell.check != task, following)
    return [cell for cell in between if not (cell.demo or cell.check or cell.task)]


def _noticed_in(check: Check, wrong: Misconception) -> list[str]:
    _stop_at_the_first_failure(check)
    return _failing(check.run(wrong.build()))


def _stop_at_the_first_failure(check: Check) -> None:
    """Leave out what only explains a failure: further criteria, and the comparison with each misconception."""
    check.criteria[:] = [replace(criterion, gate=True) for criterion in check.criteria]
    check.misconceptions.clear()


def _run_call(cell: Cell) -> str:
    """The check cell's call, as one that returns its verdict and records nothing: `check.task.run(answer)`."""
    statement = cell.tree.body[0]
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    call = statement.value
    return ast.unparse(ast.Call(ast.Attribute(call.func, "run", ast.Load()), call.args, call.keywords))


def _failing(verdict: Verdict) -> list[str]:
    """The criteria that a check does not see met, those that earn no points included."""
    return [result.name for result in verdict.criteria if result.status == "failed"]


def _survivor(mutant: Mutant, original: str) -> Survivor:
    return Survivor(mutant.before, mutant.after, mutant.diff(original))


def _believed(wrong: Misconception) -> Survivor:
    return Survivor("", wrong.name, f"the misconception {wrong.name}: {wrong.message}")


def _marked(holes: list[Survivor], equivalents: list[Equivalent]) -> tuple[list[Survivor], list[str], list[str]]:
    """Set aside the survivors that are marked as equivalent; each mark covers one. Return also the unused marks."""
    marks = Counter((mark.before, mark.after) for mark in equivalents)
    reasons = {(mark.before, mark.after): mark.reason for mark in equivalents}
    left: list[Survivor] = []
    marked: list[str] = []
    for hole in holes:
        key = hole.before, hole.after
        if marks[key]:
            marks[key] -= 1
            marked.append(f"{hole.before} -> {hole.after}: {reasons[key]}")
        else:
            left.append(hole)
    return left, marked, [f"{before} -> {after}" for before, after in marks.elements()]
