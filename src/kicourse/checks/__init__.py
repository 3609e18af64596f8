"""The vocabulary of checks, and one module a unit: `from kicourse.checks import mini_gpt as check`."""

from importlib import import_module

from kicourse.answers import AnswerError, AnswerRaised, AnswerTimedOut, Handle, Record, as_tuple
from kicourse.checks.check import Check, Criterion, Misconception
from kicourse.checks.trial import Failed, Trial
from kicourse.checks.verdict import Result, Verdict
from kicourse.language import _

__all__ = [
    "AnswerError",
    "AnswerRaised",
    "AnswerTimedOut",
    "Check",
    "Criterion",
    "Failed",
    "Handle",
    "Misconception",
    "Record",
    "Result",
    "Trial",
    "Verdict",
    "_",
    "as_tuple",
    "by_name",
    "load",
]


def load(unit: str) -> dict[str, Check]:
    """Return a unit's checks by task, in the order in which they are written."""
    return {check.task: check for check in by_name(unit).values()}


def by_name(unit: str) -> dict[str, Check]:
    """Return a unit's checks by the names that they have in their module."""
    module = import_module(f"kicourse.checks.{unit}")
    # isinstance() asks a value for its class, and a lazily imported library would come along to answer.
    return {name: value for name, value in vars(module).items() if issubclass(type(value), Check)}
