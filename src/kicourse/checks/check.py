"""The check: what decides a task."""

import hashlib
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, redirect_stderr, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from kicourse.answers import AnswerTimedOut, Handle, NotStarted, Session, ThreadConnection
from kicourse.answers.handle import Connection
from kicourse.checks import diagnosis, record
from kicourse.checks.explain import explain
from kicourse.checks.help import Hint, Reference, reference_source
from kicourse.checks.many import Many
from kicourse.checks.trial import Failed, Trial
from kicourse.checks.verdict import Result, Verdict, status_of
from kicourse.errors import UsageError
from kicourse.language import _, language, translate

_SHRINK_SECONDS = 0.3

TryAnswer = Callable[[Trial, Handle], None]


@dataclass(frozen=True)
class Criterion:
    """One named expectation: a function that raises when an answer does not meet it."""

    name: str
    title: str
    points: float
    why: str
    gate: bool
    function: TryAnswer


@dataclass(frozen=True)
class Misconception:
    """A wrong solution that people really write; `build()` returns it as an answer."""

    name: str
    message: str
    build: Callable[[], Any]


@dataclass(frozen=True)
class Equivalent:
    """A change of the reference solution that is no fault, and why: `before` and `after` are the stripped lines."""

    before: str
    after: str
    reason: str


@dataclass(repr=False)
class Check:
    """Decides one task. Call it with an answer: it never raises on a wrong one, it returns a Verdict.

    Parameters
    ----------
    unit, task : slugs; `task` is also the name of the tag in the unit's source.
    title : what the task is called on the course map.
    hints : three texts, from a nudge to nearly the code.
    seconds : how long one call of the learner's code may take.

    """

    unit: str
    task: str
    title: str
    hints: tuple[str, str, str]
    seconds: float = 10.0
    criteria: list[Criterion] = field(default_factory=list)
    misconceptions: list[Misconception] = field(default_factory=list)
    equivalents: list[Equivalent] = field(default_factory=list)
    last_answer: Any = None
    hints_given: int = 0
    given_up: bool = False
    # What misconceptions have been seen to do, by criterion, misconception and seed: an attempt of the learner's after
    # the first one is told its mistake at once.
    behaviours: dict[tuple[str, str, int], list[Any]] = field(default_factory=dict)

    @property
    def points(self) -> float:
        """The most that an answer can earn."""
        return sum(criterion.points for criterion in self.criteria)

    def __repr__(self) -> str:
        text = translate("kicourse", _("{title}, {points:g} points. Hand in your answer: check.{task}(...)"))
        return text.format(title=self._text(self.title), points=self.points, task=self.task)

    # What authors write

    def criterion(
        self, title: str, *, points: float = 0, why: str = "", gate: bool = False
    ) -> Callable[[TryAnswer], TryAnswer]:
        """Add a criterion. The first one is a gate: while a gate fails, what follows is not reached."""

        def add(function: TryAnswer) -> TryAnswer:
            is_gate = gate or not self.criteria
            self.criteria.append(Criterion(function.__name__, title, points, why, is_gate, function))
            return function

        return add

    def misconception(self, message: str, *, factory: bool = False) -> Callable[[Any], Any]:
        """Add a wrong solution. `message` completes "... your answer behaves exactly like ...".

        With `factory`, the function is called without arguments to build the answer, which keeps imports lazy.
        """

        def add(wrong: Any) -> Any:
            build = wrong if factory else lambda: wrong
            self.misconceptions.append(Misconception(wrong.__name__, message, build))
            return wrong

        return add

    def equivalent(self, before: str, after: str, *, reason: str) -> None:
        """Say that changing the line `before` of the reference solution into `after` is no fault, and why."""
        self.equivalents.append(Equivalent(before, after, reason))

    # What learners call

    def __call__(self, answer: Any) -> Verdict:
        """Try an answer, record the outcome in the workspace, and return the verdict."""
        self.last_answer = answer
        self.given_up = self.given_up or record.was_given_up(self.unit, self.task)
        with _quiet_for_nbgrader():
            verdict = self.run(answer)
        record.record(verdict.as_dict())
        return verdict

    def many(self, answer: Any = None) -> Many:
        """Try an answer (by default the last one) with 20 seeds, the way grading meets it."""
        answer = self.last_answer if answer is None else answer
        if answer is None:
            message = translate("kicourse", _("Hand in an answer first, as in the check cell: check.{task}(...)."))
            raise UsageError(message.format(task=self.task))
        return Many([self.run(answer, seed=seed) for seed in range(1, 21)])

    def hint(self, level: int | None = None) -> Hint:
        """Return the next hint, or the one of this level (1 to 3)."""
        was_last = level is None and self.hints_given == 3
        level = min(self.hints_given + 1, 3) if level is None else max(1, min(level, 3))
        self.hints_given = max(self.hints_given, level)
        return Hint(level, self._text(self.hints[level - 1]), was_last)

    def reference(self) -> Reference:
        """Give the task up: put the reference solution into the notebook. The task counts zero from then on."""
        source = reference_source(self.unit, self.task, language())
        self.given_up = True
        record.record(self._verdict([], True).as_dict(), kind="reference")
        return Reference(self._text(self.title), source).into_notebook()

    # How an answer is tried

    def run(self, answer: Any, *, seed: int = 0) -> Verdict:
        """Try an answer with one seed; nothing is recorded."""
        return self.run_over(ThreadConnection(answer), _name_of(answer, self.task), seed=seed)

    def run_over(self, connection: Connection, name: str, *, seed: int) -> Verdict:
        """Try an answer that is reached over a connection, wherever it lives; `name` is what messages call it."""
        start = time.monotonic()
        run = _Run(self, seed)
        results, started = run.results(connection, name)
        verdict = self._verdict(results, started, run.diagnosis, run.notes)
        return replace(verdict, seconds=time.monotonic() - start, answer_seconds=run.answer_seconds)

    def _verdict(
        self, results: list[Result], started: bool, diagnosed: str = "", notes: tuple[str, ...] = ()
    ) -> Verdict:
        points = sum(result.points for result in results)
        status = status_of(points, self.points, started)
        if self.given_up:
            points, status, notes = 0, "failed", (translate("kicourse", _GIVEN_UP),)
        title = self._text(self.title)
        return Verdict(self.unit, self.task, title, points, self.points, status, tuple(results), diagnosed, notes)

    def _text(self, message: str) -> str:
        return translate(self.unit, message)


def _name_of(answer: Any, otherwise: str) -> str:
    return str(getattr(answer, "__name__", otherwise))


class _Run:
    """One answer, one seed: every criterion in turn."""

    def __init__(self, check: Check, seed: int) -> None:
        self.check, self.seed = check, seed
        self.diagnosis = ""
        self.notes: tuple[str, ...] = ()
        self.answer_seconds = 0.0

    def results(self, connection: Connection, name: str) -> tuple[list[Result], bool]:
        """Return every criterion's result, and whether the learner has started on the task."""
        attempt = Attempt(self.check, Session(connection, self.check.seconds), self.seed, name=name)
        results: list[Result] = []
        failed: list[tuple[Criterion, Any]] = []
        passed: list[Criterion] = []
        started, blocked = True, False
        try:
            for criterion in self.check.criteria:
                if blocked:
                    results.append(self._result(criterion, "not_reached"))
                    continue
                error = attempt.of(criterion)
                if error is None:
                    passed.append(criterion)
                    results.append(self._result(criterion, "passed"))
                    continue
                if isinstance(error, NotStarted):
                    started = False
                    self.notes = _not_started_elsewhere(error, name) or self.notes
                failed.append((criterion, attempt.behaviour))
                results.append(self._result(criterion, "failed", attempt, attempt.smallest(criterion, error)))
                blocked = criterion.gate
        finally:
            attempt.close()
        self.answer_seconds = attempt.session.spent
        if failed and started:
            is_all = True
            with suppress(Exception):  # what an answer has returned may be unlike anything; then it has no name
                self.diagnosis, is_all = diagnosis.name(self.check, failed, passed, self.seed, attempt.session.longest)
            if self.diagnosis and not is_all:
                self.notes += (translate("kicourse", _NOT_ALL),)
        if attempt.session.changed:
            self.notes += (_changed_its_input(attempt.session.changed),)
        return results, started

    def _result(
        self,
        criterion: Criterion,
        status: Any,
        attempt: "Attempt | None" = None,
        error: Exception | None = None,
    ) -> Result:
        unit = self.check.unit
        points = criterion.points if status == "passed" else 0
        title = translate(unit, criterion.title)
        if error is None or attempt is None:
            return Result(criterion.name, title, status, points, criterion.points)
        texts = explain(error, attempt.transcript, unit)
        # After an exception the reason for the expectation would answer a question that nobody asked.
        why = translate(unit, criterion.why) if isinstance(error, Failed) and criterion.why else ""
        return Result(criterion.name, title, status, points, criterion.points, why=why, **texts)


class Attempt:
    """A conversation with one answer, criterion by criterion.

    `behaviour` is all that the answer did on the criterion tried last: every outcome, and what it caused.
    """

    def __init__(
        self,
        check: Check,
        session: Session,
        seed: int,
        *,
        name: str = "",
        patience: float | None = None,
    ) -> None:
        self.check, self.session, self.seed, self.patience = check, session, seed, patience
        self.handle = Handle(self.session, 0, name or check.task)
        self.shared: dict[Any, Any] = {}
        self.behaviour: list[Any] = []
        self.reached = 0

    @property
    def transcript(self) -> list[Any]:
        """The exchanges of the criterion tried last."""
        return self.session.transcript

    def of(self, criterion: Criterion) -> Exception | None:
        """Try one criterion; return what went wrong, or None."""
        trial = self._trial(criterion)
        error = self._try(criterion, trial)
        exchanges = [exchange.behaviour for exchange in self.transcript]
        self.behaviour = [error is None, exchanges, trial.observations]
        return error

    def smallest(self, criterion: Criterion, error: Exception) -> Exception:
        """Look for a smaller case that fails too; return its error, or `error` when there is none or it takes long."""
        deadline = time.monotonic() + _SHRINK_SECONDS
        transcript = self.session.transcript
        for size in range(1, self.reached):
            if time.monotonic() > deadline or isinstance(error, AnswerTimedOut | NotStarted):
                break
            smaller = self._try(criterion, self._trial(criterion, size))
            if smaller is not None:
                return smaller
        self.session.transcript = transcript
        return error

    def _trial(self, criterion: Criterion, size: int | None = None) -> Trial:
        return Trial(self.check.unit, criterion.name, self.seed, self.session, self.shared, size, self.patience)

    def _try(self, criterion: Criterion, trial: Trial) -> Exception | None:
        self.session.transcript = []
        try:
            with trial.resources:
                self.session.request(None, do="seed", seed=_seed_to_give_away(self.seed))
                criterion.function(trial, self.handle)
            return None
        except Exception as error:  # Failed, AnswerError, or a fault of the check: reported as one, and never a pass
            return error
        finally:
            self.reached = trial.reached

    def close(self) -> None:
        """Give the learner's own random generators back as they were, and end the conversation."""
        with suppress(Exception):  # an answer that has gone, or says anything, has nothing left to give back
            self.session.request(None, do="restore")
        self.session.connection.close()


def _seed_to_give_away(seed: int) -> int:
    """Return a seed for the answer's own generators, from which the trial's cannot be told (32 bits: NumPy's limit)."""
    return int.from_bytes(hashlib.sha256(f"answer {seed}".encode()).digest()[:4])


def _not_started_elsewhere(error: NotStarted, name: str) -> tuple[str, ...]:
    """Return what a verdict notes when the stub is not the answer's own, but another task's that the answer calls."""
    outer, *inner = error.location.function.split(".") if error.location else [name]
    if outer == name or "<locals>" in inner or not outer.isidentifier():
        return ()
    return (translate("kicourse", _ELSEWHERE).format(name=outer),)


def _changed_its_input(names: set[str]) -> str:
    """What a verdict notes, at no cost in points, when an answer changed what it was given."""
    return translate("kicourse", _CHANGED).format(names=", ".join(f"`{name}`" for name in sorted(names)))


def _quiet_for_nbgrader() -> AbstractContextManager[Any]:
    """Keep warnings of the learner's code out of stderr, where nbgrader takes them for a failed test."""
    return redirect_stderr(sys.stdout) if os.environ.get("NBGRADER_EXECUTION") else nullcontext()


_GIVEN_UP = _("You asked for the reference solution, so this task counts zero.")
_NOT_ALL = _(
    "This explains what fails first: mend that, and look again. What fails after it has another cause as well."
)
_ELSEWHERE = _("`{name}` is not started yet, and your answer calls it. Write that first.")
_CHANGED = _(
    "Your code changed its input {names}. This costs no points, but whoever called it may still need it: "
    "work on a copy."
)
