import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from kicourse.grading.job import Outcome, read_outcome
from kicourse.grading.report import CriterionReport, TaskReport
from kicourse.grading.results import Results


def outcomes(count: int) -> Iterator[Outcome]:
    """Outcomes that share nothing, as they come from workers, last student first."""
    criteria = tuple(
        CriterionReport(f"criterion_{number}", "failed", "5 is not 3. " * 5, "a title") for number in range(6)
    )
    tasks = [TaskReport(f"task_{number}", 1.5, 2.5, "partial", criteria, "A diagnosis.") for number in range(4)]
    for number in reversed(range(count)):
        outcome = Outcome(f"student-{number:05d}", "first_call", "graded", tuple(tasks), b"{}" * 500, 0.1234)
        content = json.loads(json.dumps(outcome.__dict__ | {"notebook": ""}, default=vars))
        yield read_outcome(content | {"notebook": outcome.notebook})


def test_what_is_kept_of_a_submission_is_small() -> None:
    with Results(keeps_all=True) as results:
        for outcome in outcomes(100):
            results.add(outcome)
        tracemalloc.start()
        for outcome in outcomes(1_000):
            results.add(outcome)
        each = tracemalloc.get_traced_memory()[0] / 1_000
        tracemalloc.stop()
    assert each < 1_500, "bytes; a hundred thousand of them are in memory at once"


def test_the_json_has_all_of_it_in_order(tmp_path: Path) -> None:
    path = tmp_path / "marks.json"
    with Results(keeps_all=True) as results:
        for number, outcome in enumerate(outcomes(12)):
            results.add(outcome, skipped=number % 3 == 0)
        results.write_json(path)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert [one["student"] for one in written] == [f"student-{number:05d}" for number in range(12)]
    assert {one["score"] for one in written} == {6}
    assert written[0]["tasks"][3]["criteria"][5]["message"] == "5 is not 3. " * 5
    assert (len(results.lines), results.skipped) == (8, 4)
    assert path.read_text(encoding="utf-8") == json.dumps(written, indent=2) + "\n"


def test_nothing_graded_is_an_empty_array(tmp_path: Path) -> None:
    with Results(keeps_all=True) as results:
        results.write_json(tmp_path / "marks.json")
    assert (tmp_path / "marks.json").read_text() == "[]\n"
