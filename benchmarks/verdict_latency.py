"""How long a learner waits for a verdict, beyond the time that their own code takes.

The solution's answers, and each listed misconception, are tried in one process, as in a notebook. What the check waited
for the answer is its own time; the rest is ours: drawing the trial, the oracle, encoding, the diagnosis.
"""

from collections.abc import Iterator
from typing import Any

from benchmarks.row import Row
from kicourse.checks import Check, load
from kicourse.syllabus import course
from tests.course.conftest import answers_of

REPETITIONS = 3


def beyond(check: Check, answer: Any, repetitions: int = REPETITIONS) -> float:
    """Return the seconds of a verdict beyond the answer's own; the fastest of a few, since only others slow us down."""
    verdicts = [check.run(answer) for _ in range(repetitions)]
    return min(verdict.seconds - verdict.answer_seconds for verdict in verdicts)


def measure() -> Iterator[Row]:
    """Measure every task of every finished unit."""
    for unit in course().finished:
        answers = answers_of(unit.solution("en"))
        for task, check in load(unit.slug).items():
            own = check.run(answers[task]).answer_seconds
            right = beyond(check, answers[task])
            # Once each: from the second time on, much of the search for the mistake is known already.
            wrong = max(beyond(check, misconception.build(), 1) for misconception in check.misconceptions)
            what = f"verdict of {unit.slug}.{task}"
            yield Row(what, f"{right:.3f} s", f"own code {own:.2f} s; diagnosing {wrong:.2f} s", "under 0.2 s")
