"""What the prose of `maintenance` claims is what its code computes, and its one measured threshold has room."""

import json
import statistics
from typing import Any

import numpy as np
import pytest

from kicourse.checks import maintenance
from kicourse.syllabus import course


@pytest.fixture(scope="module")
def notebook() -> dict[str, Any]:
    """The names that the whole solution defines, demonstrations included."""
    cells = json.loads(course().unit("maintenance").solution("en").read_text(encoding="utf-8"))["cells"]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KICOURSE_RECORD", "0")
        for cell in cells:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), namespace)
    return namespace


def test_a_split_of_rows_flatters_the_forest(notebook: dict[str, Any]) -> None:
    assert notebook["lucky"] == pytest.approx(0.8, abs=0.03)
    assert notebook["honest"] < 0.5


def test_the_model_is_ten_times_better_than_chance_and_far_from_perfect(notebook: dict[str, Any]) -> None:
    chance = notebook["failing"][notebook["scored"]].mean()

    assert chance == pytest.approx(0.03, abs=0.005)
    assert 10 * chance < notebook["found"] < 0.5


def test_the_honest_interval_is_three_times_as_wide(notebook: dict[str, Any]) -> None:
    widths = [float(np.ptp(notebook[name])) for name in ("one_pump", "one_row")]

    assert widths[0] / widths[1] == pytest.approx(3, abs=0.7)


def test_the_memo_to_management_tells_the_truth(notebook: dict[str, Any]) -> None:
    final, cost, alarms = notebook["final"], notebook["cost"], notebook["alarms"]
    failing = notebook["failing"][final]
    pumps = notebook["readings"]["pump"][notebook["test"]].nunique()

    assert (pumps, failing.sum(), cost(final, np.inf)) == (60, 27, 162_000)
    assert cost(final, notebook["threshold"]) == pytest.approx(80_000, abs=2_000)
    assert alarms.sum() == pytest.approx(60, abs=5)
    assert (~failing[alarms]).mean() == pytest.approx(2 / 3, abs=0.05)
    assert (~alarms[failing]).mean() == pytest.approx(1 / 3, abs=0.05)
    assert cost(final, 0.5) > 0.6 * cost(final, np.inf)


def test_an_honest_pipeline_clears_the_threshold_with_room(
    notebook: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, list[float]] = {}
    monkeypatch.setattr(
        maintenance, "_learns", lambda trial, quality, message: found.setdefault(trial.name, []).append(quality)
    )
    for seed in range(30):
        maintenance.build_pipeline.run(notebook["build_pipeline"], seed=seed)

    assert len(found) == 4
    for criterion, qualities in found.items():
        room = statistics.mean(qualities) - maintenance._ENOUGH
        assert room > 6 * statistics.stdev(qualities), criterion
