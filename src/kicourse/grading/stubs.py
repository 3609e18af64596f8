"""What stands in for `kicourse.checks` where a submission runs: it hands answers in, and decides nothing.

The checks themselves are tried by the judge, in a process that the submission cannot reach.
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol


class Stage(Protocol):
    """What a stub needs of the player."""

    def hand_in(self, unit: str, task: str, answer: Any) -> bool:
        """Hand an answer in to the judge; return whether this was the place for it."""

    def reference(self, unit: str, task: str) -> str:
        """Return a reference solution, at the price of the task. Raises UserError where there is none to have."""


class Noted:
    """What a check returns in grading: the verdict is the judge's, and is not told here."""

    def __repr__(self) -> str:
        return "This notebook is being graded; the verdict stands below the check's own cell."


class TaskStub:
    """Stands in for one check."""

    def __init__(self, stage: Stage, unit: str, task: str) -> None:
        self._stage, self.unit, self.task = stage, unit, task

    def __call__(self, answer: Any) -> Noted | None:
        """Hand an answer in; in a cell of the learner's own this does nothing."""
        return None if self._stage.hand_in(self.unit, self.task, answer) else Noted()

    def many(self, answer: Any = None) -> Noted:
        """Do nothing: grading tries an answer once."""
        return Noted()

    def hint(self, level: int | None = None) -> Noted:
        """Do nothing: it is too late for hints."""
        return Noted()

    def reference(self) -> None:
        """Run the reference solution in the notebook, where the class allows it; the task then counts zero."""
        from IPython import get_ipython

        source = self._stage.reference(self.unit, self.task)
        if (shell := get_ipython()) is not None:
            exec(compile(source, "<reference solution>", "exec"), shell.user_ns)


class _Module(ModuleType):
    """A module whose every public name is what `make(name)` returns."""

    def __init__(self, name: str, make: Callable[[str], Any]) -> None:
        super().__init__(name, __doc__)
        self.__dict__["_make"] = make

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.__dict__.setdefault(name, self._make(name))


def install(stage: Stage, units: tuple[str, ...]) -> None:
    """Put the stubs where `from kicourse.checks import UNIT as check` finds them."""

    def module(unit: str) -> _Module:
        return _Module(f"kicourse.checks.{unit}", lambda task: TaskStub(stage, unit, task))

    package = _Module("kicourse.checks", module)
    sys.modules["kicourse.checks"] = package
    for unit in units:
        sys.modules[f"kicourse.checks.{unit}"] = getattr(package, unit)
    # `import kicourse.checks` looks here.
    sys.modules["kicourse"].checks = package  # type: ignore[attr-defined]
