"""A check from outside: what an answer earns, and what its author is told."""

import asyncio
import json
import signal
import subprocess
import sys
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest

from kicourse.checks import Check, Handle, Record, Trial, Verdict, explain, load
from kicourse.checks.help import reference_source
from kicourse.checks.render import as_html
from kicourse.checks.show import show
from kicourse.errors import UsageError, UserError
from tests.liars import LIARS


@pytest.fixture
def check() -> Check:
    top_k = Check(
        "mini_gpt", "top_k", title="Top-k", hints=("a nudge", "the idea", "nearly the code"), seconds=0.5
    )  # fmt: skip

    @top_k.criterion("keeps k logits", points=1, why="A sampler that keeps more is no top-k.")
    def keeps_k(trial: Trial, answer: Handle) -> None:
        for logits, k in trial.cases(lambda rng, size: (rng.normal(size=size + 1), min(size, 3))):
            got = answer.allowing_nonfinite()(logits, k)
            trial.array(got, shape=logits.shape)
            kept = int(np.isfinite(got).sum())
            trial.require(kept == k, "{kept} logits are left, not {k}.", expected=k, kept=kept, k=k)

    @top_k.criterion("keeps the largest", points=2)
    def keeps_largest(trial: Trial, answer: Handle) -> None:
        trial.close(answer.allowing_nonfinite()(np.array([3.0, 1.0, 2.0]), 2), np.array([3.0, -np.inf, 2.0]))

    @top_k.criterion("k = 1 keeps the best", points=1)
    def keeps_best(trial: Trial, answer: Handle) -> None:
        trial.close(answer.allowing_nonfinite()(np.array([3.0, 1.0]), 1), np.array([3.0, -np.inf]))

    @top_k.misconception("a limit that is one too low")
    def one_more(logits: Any, k: int) -> Any:
        return np.where(logits >= np.sort(logits)[-min(k + 1, len(logits))], logits, -np.inf)

    @top_k.misconception("the smallest instead of the largest")
    def smallest(logits: Any, k: int) -> Any:
        return np.where(logits <= np.sort(logits)[k - 1], logits, -np.inf)

    return top_k


def right(logits: Any, k: int) -> Any:
    return np.where(logits >= np.sort(logits)[-k], logits, -np.inf)


def failure(verdict: Verdict) -> Any:
    return next(result for result in verdict.criteria if result.status == "failed")


def test_a_right_answer_earns_all(check: Check) -> None:
    verdict = check.run(right)
    assert (verdict.points, verdict.max_points, verdict.status) == (4, 4, "passed")
    assert check.many(right).passed == 20


def test_a_partly_right_answer_earns_its_part_and_the_rest_is_still_tried(check: Check) -> None:
    verdict = check.run(lambda logits, k: -right(-logits, k) if len(logits) == 3 else right(logits, k))
    assert [result.status for result in verdict.criteria] == ["passed", "failed", "passed"]
    assert (verdict.points, verdict.status) == (2, "partial")


def test_the_failing_case_that_is_shown_is_a_small_one() -> None:
    check = Check("mini_gpt", "longest", title="Longest", hints=("", "", ""))

    @check.criterion("finds it", points=1)
    def finds(trial: Trial, answer: Handle) -> None:
        for words in trial.cases(lambda rng, size: ["x" * int(n) for n in rng.integers(1, 4, size=3 * size)]):
            trial.equal(answer(words), max(words, key=len))

    def first_of_many(words: list[str]) -> str:
        return max(words, key=len) if len(words) < 9 or words[-1] == "x" else words[-1][1:]

    shown = failure(check.run(first_of_many)).tried
    assert shown.count("'x") == 9, "the smallest case that can fail, though drawn sizes go up to 60"


def test_nothing_is_reached_behind_a_failed_gate(check: Check) -> None:
    verdict = check.run(lambda logits, k: logits)
    assert [result.status for result in verdict.criteria] == ["failed", "not_reached", "not_reached"]
    assert verdict.points == 0
    assert "Stuck?" in repr(verdict)


def test_a_failure_says_what_was_tried_what_came_what_was_expected_and_why(check: Check) -> None:
    def top_k(logits: Any, k: int) -> Any:
        return logits

    result = failure(check.run(top_k))
    assert result.message == "2 logits are left, not 1."
    assert result.tried.startswith("top_k(array([")
    assert result.got.startswith("array([")
    assert result.expected == "1"
    assert result.why == "A sampler that keeps more is no top-k."


def test_a_known_mistake_is_named_however_it_is_written(check: Check) -> None:
    def mine(logits: Any, k: int) -> Any:
        limit = sorted(logits, reverse=True)[min(k, len(logits) - 1)]
        return np.array([x if x >= limit else -np.inf for x in logits])

    assert check.run(mine).diagnosis == "a limit that is one too low"
    assert check.run(lambda logits, k: logits * 2).diagnosis == ""


def test_the_second_criterion_tells_two_mistakes_apart(check: Check) -> None:
    """The first criterion passes for `smallest`; the second one names it."""
    verdict = check.run(lambda logits, k: np.where(np.argsort(np.argsort(logits)) < k, logits, -np.inf))
    assert verdict.diagnosis == "the smallest instead of the largest"
    assert verdict.notes == ()


def test_a_criterion_that_was_passed_tells_two_mistakes_apart(check: Check) -> None:
    """Where it fails, it is `smallest` to the digit, which fails the last criterion as well."""

    @check.misconception("the smallest of three")
    def of_three(logits: Any, k: int) -> Any:
        if len(logits) != 3:
            return right(logits, k)
        return np.where(logits <= np.sort(logits)[k - 1], logits, -np.inf)

    verdict = check.run(lambda logits, k: of_three(logits, k))
    assert [result.status for result in verdict.criteria] == ["passed", "failed", "passed"]
    assert verdict.diagnosis == "the smallest of three"


def test_a_known_mistake_beside_another_one_explains_only_what_fails_first(check: Check) -> None:
    def two_mistakes(logits: Any, k: int) -> Any:
        if logits.tolist() == [3.0, 1.0]:
            return np.array([2.0, -np.inf])
        return np.where(np.argsort(np.argsort(logits)) < k, logits, -np.inf)

    verdict = check.run(two_mistakes)
    assert verdict.diagnosis == "the smallest instead of the largest"
    assert "explains what fails first" in verdict.notes[0]


def test_a_mistake_that_does_not_fit_is_not_tried_again(check: Check) -> None:
    tried: list[int] = []

    @check.misconception("three times as much")
    def thrice(logits: Any, k: int) -> Any:
        tried.append(k)
        return logits * 3

    assert check.run(lambda logits, k: logits * 2).diagnosis == ""
    assert len(tried) == 1
    assert check.run(lambda logits, k: 2 * logits).diagnosis == ""
    assert len(tried) == 1
    assert check.run(lambda logits, k: 3 * logits).diagnosis == "three times as much"


def test_ctrl_c_ends_the_search_for_the_mistake_too(check: Check) -> None:
    @check.misconception("one that is never finished")
    def interrupted(logits: Any, k: int) -> Any:
        signal.raise_signal(signal.SIGINT)
        time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        check.run(lambda logits, k: logits * 2)


@pytest.mark.parametrize("liar", LIARS)
def test_liars_earn_nothing(check: Check, liar: str) -> None:
    verdict = check.run(LIARS[liar])
    assert verdict.points == 0
    assert verdict.status == "failed"


def test_a_stub_is_not_started(check: Check) -> None:
    def stub(logits: Any, k: int) -> Any:
        raise NotImplementedError()

    verdict = check.run(stub)
    assert (verdict.status, verdict.points) == ("not_started", 0)
    assert "not started" in repr(verdict)
    assert verdict.notes == ()


def test_what_a_library_has_not_implemented_is_no_stub(check: Check) -> None:
    def answer(logits: Any, k: int) -> Any:
        return asyncio.BaseTransport().is_closing()

    verdict = check.run(answer)
    assert verdict.status == "failed"
    assert "Your code raised NotImplementedError" in verdict.criteria[0].message


def test_what_turns_a_line_around_is_spelled_out(check: Check) -> None:
    def answer(logits: Any, k: int) -> Any:
        raise ValueError("\u202edessap")

    assert r"ValueError: \u202edessap" in repr(check.run(answer))


def top_k_of_another_task(logits: Any, k: int) -> Any:
    raise NotImplementedError()


def test_a_stub_that_an_answer_calls_is_named(check: Check) -> None:
    def answer(logits: Any, k: int) -> Any:
        return top_k_of_another_task(logits, k)

    verdict = check.run(answer)
    assert (verdict.status, verdict.points) == ("not_started", 0)
    note = "`top_k_of_another_task` is not started yet, and your answer calls it. Write that first."
    assert verdict.notes == (note,)
    assert note in repr(verdict)


def never_returns(logits: Any, k: int) -> Any:
    while True:
        k += 1


def sees_no_number(logits: Any, k: int) -> Any:
    return logits * np.nan


def raises(logits: Any, k: int) -> Any:
    return logits[1000]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (never_returns, ("did not come back within 0.5 seconds", "line", "k")),
        (raises, ("IndexError", "return logits[1000]")),
        (lambda logits, k: [1.0] * len(logits), ("You returned list, not numpy.ndarray",)),
        (lambda logits, k: logits[:-1], ("shape (1,), not (2,)",)),
        (lambda logits, k: None, ("You returned None",)),
        (lambda logits, k: print, ("an object of type `builtin_function_or_method`",)),
        (lambda logits: logits, ("TypeError",)),
    ],
)
def test_each_fault_is_told_by_what_it_is(check: Check, answer: Any, words: tuple[str, ...]) -> None:
    text = repr(check.run(answer))
    for word in words:
        assert word in text
    assert "kicourse/" not in text, "a verdict shows no line of the package"


def test_not_finite_results_are_named(check: Check) -> None:
    @check.criterion("is finite", points=1)
    def finite(trial: Trial, answer: Handle) -> None:
        answer(np.array([1.0, 2.0]), 1)

    result = check.run(right).criteria[-1]
    assert "not finite: -inf at index [0]" in result.message


def test_a_changed_input_is_told_and_costs_nothing(check: Check) -> None:
    def in_place(logits: Any, k: int) -> Any:
        logits[logits < np.sort(logits)[-k]] = -np.inf
        return logits

    verdict = check.run(in_place)
    assert verdict.status == "passed"
    assert all(result.status == "passed" for result in verdict.criteria)
    assert "changed its input `logits`" in verdict.notes[0]
    assert "! Your code changed" in repr(verdict)


def test_numbers_that_differ_late_are_shown_with_enough_digits(check: Check) -> None:
    @check.criterion("exact", points=1)
    def exact(trial: Trial, answer: Handle) -> None:
        trial.close(np.array([0.36620001]), np.array([0.366249]))

    verdict = check.run(right)
    assert "0.36620001 instead of 0.366249" in failure(verdict).message
    assert verdict.diagnosis == "", "where nothing was asked of the answer, it behaves like nothing"


def test_whole_numbers_are_shown_as_whole_numbers() -> None:
    torch = pytest.importorskip("torch")
    assert show(torch.tensor([213, 448])) == "tensor([213, 448])"
    assert show(torch.tensor([0.5], dtype=torch.bfloat16)) == "tensor([0.5])"


def test_what_is_shown_is_cut_before_it_is_written() -> None:
    long = "x" * 10**6
    many = Record("dataclass", "Wide", {str(number): long for number in range(1_000)})
    values = (
        long,
        long.encode(),
        np.array(long),
        np.array([long, "y"]),
        Record("dataclass", "Big", {long: long}),
        many,
    )
    tracemalloc.start()
    for value in values:
        assert len(show(value)) <= 400
    _size, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
    assert show(Record("dataclass", "Wide", {str(number): number for number in range(13)})).endswith("11=11, ...)")


def test_what_nobody_can_show_is_a_fault_that_is_reported(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> str:
        raise SystemError("cannot be shown")

    monkeypatch.setattr(explain, "show_call", fails)
    verdict = check.run(lambda *_: 1)
    assert verdict.points == 0
    assert "Please report it" in failure(verdict).message
    assert "cannot be shown" in failure(verdict).message


def test_a_fault_of_the_check_is_no_pass_and_no_crash(check: Check) -> None:
    @check.criterion("has a bug", points=1)
    def buggy(trial: Trial, answer: Handle) -> None:
        raise ZeroDivisionError("ours")

    verdict = check.run(right)
    assert verdict.points == 4
    assert verdict.max_points == 5
    assert "Please report" in failure(verdict).message


def test_a_criterion_does_not_depend_on_its_neighbours(check: Check) -> None:
    before = repr(check.run(lambda logits, k: logits))

    @check.criterion("one more", points=1)
    def more(trial: Trial, answer: Handle) -> None:
        trial.rng.normal()

    assert repr(check.run(lambda logits, k: logits)).splitlines()[1:5] == before.splitlines()[1:5]


def test_work_shared_by_criteria_is_done_once(check: Check) -> None:
    calls: list[int] = []

    def work(trial: Trial, answer: Handle) -> float:
        calls.append(1)
        return float(trial.rng.normal())

    seen: list[float] = []
    for name in ("one", "two"):

        def criterion(trial: Trial, answer: Handle) -> None:
            seen.append(trial.once(work, answer))

        criterion.__name__ = name
        check.criterion(name)(criterion)
    check.run(right)
    assert len(calls) == 1
    assert seen[0] == seen[1]


def test_hints_come_one_after_the_other(check: Check) -> None:
    assert [check.hint().text for _ in range(4)] == ["a nudge", "the idea", "nearly the code", "nearly the code"]
    assert check.hint(1).text == "a nudge"
    assert "last hint" in repr(check.hint())


def test_many_needs_an_answer_first(check: Check) -> None:
    with pytest.raises(UsageError, match="Hand in an answer first"):
        check.many()
    check(right)
    assert check.many().passed == 20


def test_the_reference_solution_is_off_in_a_graded_class(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = load("mini_gpt")["sample"]
    assert "def sample" in reference_source("mini_gpt", "sample", "de")
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(UserError, match="off in this class"):
        sample.reference()
    assert not sample.given_up
    monkeypatch.setenv("KICOURSE_REFERENCE", "on")
    assert "def sample" in reference_source("mini_gpt", "sample", "en")
    monkeypatch.delenv("NBGRADER_EXECUTION")
    monkeypatch.setenv("KICOURSE_REFERENCE", "off")
    with pytest.raises(UserError):
        sample.reference()


def test_a_task_that_was_given_up_counts_zero_for_good(check: Check) -> None:
    check.given_up = True
    verdict = check(right)
    assert (verdict.points, verdict.status) == (0, "failed")
    assert "reference solution" in verdict.notes[-1]
    assert "Stuck" not in repr(verdict)


def test_html_escapes_what_answers_say(check: Check) -> None:
    def answer(logits: Any, k: int) -> Any:
        raise ValueError("<script>alert(1)</script>")

    page = as_html(check.run(answer))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_nbgrader_reads_a_bare_number(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    bundle = check.run(lambda logits, k: -right(-logits, k) if len(logits) == 3 else right(logits, k))
    assert bundle._repr_mimebundle_()["text/plain"] == "2"
    json.dumps(bundle._repr_mimebundle_())


def test_warnings_of_the_learners_code_cost_no_marks_in_nbgrader(
    check: Check, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """nbgrader gives no points to a cell that wrote to stderr."""
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")

    def noisy(logits: Any, k: int) -> Any:
        print("careful", file=sys.stderr)
        return right(logits, k)

    assert check(noisy).status == "passed"
    assert capsys.readouterr().err == ""


def test_the_words_of_a_verdict_are_translated(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KICOURSE_LANG", "de")
    assert "bestanden" in repr(check.run(right))
    assert "Punkte" in repr(check.run(right))
    check.criterion("half a point", points=0.5)(lambda trial, answer: None)
    assert "4,5/4,5 Punkte" in repr(check.run(right))


def test_loading_the_checks_is_instant() -> None:
    """No torch, no numpy, no pandas until they are needed; how many seconds is the benchmarks' affair."""
    code = """
import sys
from kicourse import checks, syllabus
assert all(checks.load(unit.slug) for unit in syllabus.course().finished)
print(*{'torch.nn', 'numpy.linalg', 'pandas.core', 'sklearn.base', 'IPython'} & set(sys.modules))
"""
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == ""
