"""What must hold for every finished unit."""

import importlib
import time
from typing import Any

import pytest

from kicourse.checks import Check, diagnosis, load
from kicourse.checks.explain import OWN_FAULT
from kicourse.language import translate
from tests.liars import LIARS

BOLDEST = ("None", "yes-object", "echo", "returns True", "returns 0", "returns a yes-object", "endless iterator", "str")
OTHERS = tuple(liar for liar in LIARS if liar not in BOLDEST)
SEED_SECONDS = 10  # how long to go on with further seeds; at least two are always tried


def test_a_unit_is_worth_ten_points_in_three_to_five_tasks(slug: str) -> None:
    checks = load(slug)
    assert 3 <= len(checks) <= 5
    assert sum(check.points for check in checks.values()) == 10


def test_every_check_has_three_to_six_criteria_and_lists_misconceptions(slug: str) -> None:
    for check in load(slug).values():
        assert 3 <= len(check.criteria) <= 6, check.task
        assert check.misconceptions, check.task
        assert all(criterion.why for criterion in check.criteria if criterion.points), check.task


def test_the_solution_earns_full_marks(slug: str, solution: dict[str, Any]) -> None:
    for task, check in load(slug).items():
        verdict = check.run(solution[task])
        assert all(result.status == "passed" for result in verdict.criteria), verdict
        assert (verdict.points, verdict.notes) == (check.points, ()), verdict


@pytest.mark.long
def test_the_solution_earns_full_marks_whatever_the_seed(slug: str, solution: dict[str, Any]) -> None:
    for task, check in load(slug).items():
        start = time.monotonic()
        for seed in range(20):
            verdict = check.run(solution[task], seed=seed)
            assert verdict.status == "passed", f"seed {seed}\n{verdict!r}"
            assert all(result.status == "passed" for result in verdict.criteria), verdict
            if seed and time.monotonic() - start > SEED_SECONDS:
                break


def test_the_untouched_exercise_is_not_started_and_scores_nothing(slug: str, exercise: dict[str, Any]) -> None:
    for task, check in load(slug).items():
        verdict = check.run(exercise[task])
        assert (verdict.status, verdict.points) == ("not_started", 0), verdict


@pytest.mark.parametrize(
    ("seed", "language"),
    [(0, "de"), *(pytest.param(seed, "en", marks=pytest.mark.long) for seed in (11, 12, 13))],
)
def test_every_misconception_fails_and_is_named(
    slug: str, seed: int, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In German by day: there a message can stumble over its own numbers, too."""
    monkeypatch.setenv("KICOURSE_LANG", language)
    # A suspect that stands still for a second, since other tests take the machine, would be taken for one that waits.
    monkeypatch.setattr(diagnosis, "_SHORTEST_CALL_SECONDS", 3.0)
    for check in load(slug).values():
        for misconception in check.misconceptions:
            verdict = check.run(misconception.build(), seed=seed)
            assert verdict.status in ("failed", "partial"), f"{misconception.name}\n{verdict!r}"
            assert verdict.diagnosis == translate(slug, misconception.message), f"{misconception.name}\n{verdict!r}"
            assert_no_fault_of_the_check(check, verdict)


def test_a_differently_written_solution_passes(slug: str) -> None:
    alternatives = importlib.import_module(f"tests.course.alternatives.{slug}")
    for task, check in load(slug).items():
        verdict = check.run(getattr(alternatives, task), seed=3)
        assert verdict.status == "passed", verdict


@pytest.mark.parametrize("liar", [*BOLDEST, *(pytest.param(liar, marks=pytest.mark.long) for liar in OTHERS)])
def test_liars_earn_nothing(slug: str, liar: str) -> None:
    for check in load(slug).values():
        verdict = check.run(LIARS[liar])
        assert verdict.points == 0, verdict
        assert_no_fault_of_the_check(check, verdict)


def assert_no_fault_of_the_check(check: Check, verdict: Any) -> None:
    beginning, _, _ = translate("kicourse", OWN_FAULT).partition("{")
    for result in verdict.criteria:
        assert not result.message.startswith(beginning), f"{check.task}: {result.message}"


def test_checks_speak_german(slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KICOURSE_LANG", "de")
    for check in load(slug).values():
        for text in (check.title, *check.hints, *(criterion.title for criterion in check.criteria)):
            assert translate(slug, text) != text or len(text) < 25, text
