"""The check that diagnoses: does a failing answer behave exactly like a mistake that is known?

The failing criterion is run again with each listed misconception in the answer's place, with the same seed, so with the
same trial. If the whole conversation is the same (what was asked, what came back, what lent functions and scripted
servers saw), the learner is told what the mistake is called. It must be one that passes where the answer passed, too.
"""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kicourse.answers import AnswerError, AnswerRaised, AnswerTimedOut, Record, ThreadConnection
from kicourse.answers.codec import Bounds
from kicourse.answers.handle import Exchange, Session
from kicourse.language import translate

if TYPE_CHECKING:
    from kicourse.checks.check import Check, Criterion, Misconception

_PATIENCE = 10.0  # seconds for all misconceptions together
_PATIENCE_WITH_ONE = 1.0  # seconds for looking whether the only one that is left passes where the answer did
_PATIENCE_OF_SERVERS = 0.2  # seconds: misconceptions are not slow, except where their fault is to wait for ever
_CALL_SECONDS = 2.0  # for a call of a misconception where the answer's own did not end
_SHORTEST_CALL_SECONDS = 1.0
_SLOWER = 8  # times as long as the answer's slowest call may take what behaves like it


def name(
    check: "Check", failed: "list[tuple[Criterion, Any]]", passed: "list[Criterion]", seed: int, longest: float
) -> tuple[str, bool]:
    """Return the message of the misconception that an answer behaves like, or the empty string.

    `failed` holds each failed criterion with the behaviour seen there. Where the first one cannot tell two
    misconceptions apart, the next ones are asked, and then those that the answer passed; the second value says whether
    the misconception explains all that failed. `longest` is how many seconds the answer's slowest call took.
    """
    suspects = list(check.misconceptions)
    found: list[Misconception] = []
    deadline = time.monotonic() + _PATIENCE
    usual = min(check.seconds, max(_SHORTEST_CALL_SECONDS, _SLOWER * longest))
    for criterion, seen in failed:
        if not seen[1]:
            continue  # nothing was asked of the answer here
        seconds = min(check.seconds, _CALL_SECONDS) if _timed_out(seen[1]) else usual
        suspects = [
            suspect
            for suspect in suspects
            if time.monotonic() < deadline and _behaves(check, criterion, suspect, seed, seen, seconds)
        ]
        found = suspects or found
        if not suspects:
            break
    is_all = bool(suspects) or time.monotonic() >= deadline  # who had no time to look claims nothing
    soon = time.monotonic() + _PATIENCE_WITH_ONE
    for criterion in passed:
        if not found or time.monotonic() >= (deadline if len(found) > 1 else soon):
            break
        found = [suspect for suspect in found if _passes(check, criterion, suspect, seed, usual)]
    return (translate(check.unit, found[0].message) if found else "", is_all)


def _behaves(
    check: "Check", criterion: "Criterion", suspect: "Misconception", seed: int, seen: list[Any], seconds: float
) -> bool:
    """Whether a misconception does on a criterion what was seen there."""
    from kicourse.checks.check import Attempt

    place = (criterion.name, suspect.name, seed)
    known = check.behaviours.get(place, [])
    if not similar(seen[1][: len(known)], known):
        return False  # as an earlier repetition has shown: the same seed is the same trial
    session = _Repetition(ThreadConnection(suspect.build()), seconds, expected=seen[1])
    attempt = Attempt(check, session, seed, patience=_PATIENCE_OF_SERVERS)
    try:
        attempt.of(criterion)
        exchanges = attempt.behaviour[1]
        # Whether time was up depends on what else the machine does: it is not kept.
        if not _timed_out(exchanges):
            check.behaviours[place] = exchanges
        return similar(seen, attempt.behaviour)
    finally:
        attempt.close()


def _passes(check: "Check", criterion: "Criterion", suspect: "Misconception", seed: int, seconds: float) -> bool:
    from kicourse.checks.check import Attempt

    session = Session(ThreadConnection(suspect.build()), seconds)
    attempt = Attempt(check, session, seed, patience=_PATIENCE_OF_SERVERS)
    try:
        return attempt.of(criterion) is None
    finally:
        attempt.close()


def _timed_out(exchanges: list[Any]) -> bool:
    return any(isinstance(outcome, AnswerTimedOut) for outcome, _lent in exchanges)


@dataclass
class _Repetition(Session):
    """A conversation that breaks off as soon as it differs from an earlier one: most suspects are cleared at once."""

    expected: list[Any] = field(default_factory=list)

    def request(self, exchange: Exchange | None, bounds: Bounds | None = None, **message: Any) -> Any:
        try:
            reply = super().request(exchange, bounds, **message)
        except AnswerError:
            self._require_equal(exchange)
            raise
        self._require_equal(exchange)
        return reply

    def _require_equal(self, exchange: Exchange | None) -> None:
        place = len(self.transcript) - 1
        if exchange is not None and not similar(self.expected[place : place + 1], [exchange.behaviour]):
            raise _DifferenceError


class _DifferenceError(Exception):
    """A suspect behaves otherwise."""


def similar(one: Any, other: Any) -> bool:
    """Whether two outcomes are the same, numbers up to rounding. Errors are the same if their types are."""
    if isinstance(one, AnswerRaised) and isinstance(other, AnswerRaised):
        return one.type_names[0] == other.type_names[0]
    if isinstance(one, AnswerTimedOut) and isinstance(other, AnswerTimedOut):
        return True
    if isinstance(one, AnswerError) or isinstance(other, AnswerError):
        return type(one) is type(other) and str(one) == str(other)
    if type(one) is not type(other):
        return False
    if isinstance(one, Record):
        return similar([one.kind, one.fields], [other.kind, other.fields])
    if isinstance(one, dict):
        return list(one) == list(other) and all(similar(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(similar(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float):
        return one == other or abs(one - other) <= 1e-9 + 1e-5 * abs(other) or (one != one and other != other)
    if hasattr(one, "shape"):
        return _similar_arrays(one, other)
    return bool(one == other)


def _similar_arrays(one: Any, other: Any) -> bool:
    import numpy as np

    if hasattr(one, "equals"):
        return _similar_tables(one, other)
    a, b = (value.float().numpy() if hasattr(value, "numpy") else np.asarray(value) for value in (one, other))
    if a.shape != b.shape or a.dtype.kind != b.dtype.kind:
        return False
    return bool(np.allclose(a, b, rtol=1e-5, atol=1e-8, equal_nan=True) if a.dtype.kind in "fc" else (a == b).all())


def _similar_tables(one: Any, other: Any) -> bool:
    """Compare pandas objects: the same columns in any order, the same rows, numbers up to rounding."""
    from pandas.testing import assert_frame_equal, assert_series_equal

    try:
        if hasattr(one, "columns"):
            assert_frame_equal(one, other, check_dtype=False, check_like=True, rtol=1e-5, atol=1e-8)
        else:
            assert_series_equal(one, other, check_dtype=False, check_names=False, rtol=1e-5, atol=1e-8)
    except AssertionError:
        return False
    return True
