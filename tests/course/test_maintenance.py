"""What the prose of `maintenance` claims is what its code computes, and its one measured threshold has room."""

import json
import math
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from kicourse.checks import maintenance
from kicourse.syllabus import course
from tests.course.alternatives import maintenance as alternatives

# The notebook takes 20 seconds: it runs once, then.
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("the notebook of maintenance")]


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
    assert cost(final, notebook["threshold"]) == pytest.approx(77_000, abs=500)
    assert alarms.sum() == 65
    assert (~failing[alarms]).mean() == pytest.approx(2 / 3, abs=0.05)
    assert (~alarms[failing]).mean() == pytest.approx(0.3, abs=0.03)
    assert cost(final, 0.5) > 0.6 * cost(final, np.inf)


def test_the_three_pumps_of_the_last_figure_are_as_described(notebook: dict[str, Any]) -> None:
    names, days, visits = notebook["names"], notebook["readings"]["day"].to_numpy(), {}
    for pump in ("P142", "P165", "P171"):
        rows = (names == pump) & notebook["test"]
        visits[pump] = days[rows & notebook["decisions"] & (notebook["risk"] >= notebook["threshold"])]

    assert all(notebook["outcomes"].loc[list(visits), "failed"])
    assert visits["P142"].min() > 100
    assert len(visits["P171"]) == 0
    assert visits["P165"].min() == 0
    assert visits["P165"].max() > 100


def test_how_many_days_a_window_has_hardly_matters(notebook: dict[str, Any]) -> None:
    rows, qualities = notebook["judged"], []
    for days in (7, 14, 28):
        features = notebook["window_features"](notebook["readings"], notebook["sensors"], days)
        model = notebook["build_pipeline"](features, notebook["labels"], notebook["train"])
        risk = model.predict_proba(features[rows])[:, 1]
        qualities.append(notebook["average_precision_score"](notebook["failing"][rows], risk))

    assert np.ptp(qualities) < np.ptp(notebook["one_pump"]) / 5


class Interval(NamedTuple):
    low: float
    high: float


@pytest.mark.parametrize("kind", [list, np.array, lambda ends: Interval(*ends)])
def test_an_interval_may_be_anything_with_two_ends(kind: Callable[[Any], Any]) -> None:
    def answer(*args: Any, **kwargs: Any) -> Any:
        return kind(alternatives.average_precision_interval(*args, **kwargs))

    assert maintenance.average_precision_interval.run(answer).status == "passed"


def test_the_cut_at_each_end_is_judged_apart_from_the_draws() -> None:
    wrong = {m.name: m.build() for m in maintenance.average_precision_interval.misconceptions}
    for name in ("whole_tails", "level_ignored"):
        verdict = maintenance.average_precision_interval.run(wrong[name])
        assert [result.name for result in verdict.criteria if result.status == "failed"] == ["levels"]


def test_equal_scores_are_alarms_together() -> None:
    def by_place(labels: Any, scores: Any, tuning: Any, inspection: float, failure: float) -> float:
        labels, scores = labels[tuning], scores[tuning]
        order = np.argsort(-scores)
        found = np.concatenate([[0], labels[order].cumsum()])
        best = int(np.argmin(inspection * np.arange(len(scores) + 1) + failure * (labels.sum() - found)))
        return float(np.inf if best == 0 else scores[order[best - 1]])

    for seed in range(20):
        verdict = maintenance.best_threshold.run(by_place, seed=seed)
        assert [result.name for result in verdict.criteria if result.status != "passed"] == ["equal_scores"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda table: table.sort_index(ascending=False), "another order"),
        (lambda table: table.iloc[:-1], "not those of"),
        (lambda table: table.reset_index(drop=True), "another index"),
        (lambda table: table.set_index(np.arange(len(table)), append=True), "two levels"),
    ],
)
def test_rows_that_do_not_fit_are_told_apart(spoil: Callable[[Any], Any], words: str) -> None:
    verdict = maintenance.window_features.run(lambda *args: spoil(alternatives.window_features(*args)))

    assert words in verdict.criteria[0].message


def splits(cut: Callable[[float], int]) -> Any:
    """A split that cuts off so many of each group."""

    def split(readings: Any, outcomes: Any, share: float, seed: int) -> Any:
        rng, test = np.random.default_rng(seed), set[str]()
        for _fate, group in outcomes.groupby("failed"):
            test.update(rng.permutation(group.index.to_numpy())[: cut(share * len(group))])
        return readings["pump"].isin(test).to_numpy()

    return split


def side_by_side(readings: Any, outcomes: Any, share: float, seed: int) -> Any:
    test = splits(round)(readings, outcomes, share, seed)
    first = ~readings["pump"].duplicated().to_numpy()
    return np.repeat(test[first], readings.groupby("pump", sort=False).size())


def by_number(readings: Any, outcomes: Any, share: float, seed: int) -> Any:
    test = np.zeros(len(readings), dtype=bool)
    test[readings.index[splits(round)(readings, outcomes, share, seed)]] = True
    return test


def without_sure_rounds(
    labels: Any, scores: Any, pumps: Any, draw: Any, rounds: int = 1000, level: float = 0.95
) -> Any:
    samples = (s for s in maintenance._samples(pumps, draw, rounds) if not labels[s].all())
    return maintenance._bootstrap(labels, scores, samples, level)


def chooses(candidates: Callable[[Any], Any]) -> Any:
    """A search for the cheapest of some candidates, which may depend on the scores for tuning."""

    def best_threshold(labels: Any, scores: Any, tuning: Any, inspection: float, failure: float) -> float:
        labels, scores = labels[tuning], scores[tuning]
        return maintenance._cheapest(labels, scores, candidates(scores), inspection, failure)

    return best_threshold


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize(
    ("task", "wrong", "criterion"),
    [
        ("split_by_pump", splits(lambda count: int(count) + 1), "in_proportion"),
        ("split_by_pump", by_number, "in_proportion"),
        ("split_by_pump", side_by_side, "pumps_whole"),
        ("average_precision_interval", without_sure_rounds, "levels"),
        ("best_threshold", chooses(lambda scores: [*np.percentile(scores, range(101)), np.inf]), "least_cost"),
        ("best_threshold", chooses(lambda scores: [*np.unique(scores), scores.max() + 1e-9]), "never"),
        ("best_threshold", chooses(np.unique), "never"),
    ],
)
def test_a_branch_that_goes_wrong_costs_its_own_criterion_only(task: str, wrong: Any, criterion: str) -> None:
    for seed in range(6):
        results = getattr(maintenance, task).run(wrong, seed=seed).criteria
        assert [result.name for result in results if result.status == "failed"] == [criterion], seed


@pytest.mark.usefixtures("undiagnosed")
@pytest.mark.parametrize("cut", [int, math.ceil])
def test_a_share_may_be_rounded_up_or_down(cut: Callable[[float], int]) -> None:
    for seed in range(10):
        assert maintenance.split_by_pump.run(splits(cut), seed=seed).status == "passed"


@pytest.mark.parametrize("kind", [np.array, lambda names: np.array(names, dtype=str), lambda names: names])
def test_pumps_in_place_of_rows_are_told_so(kind: Callable[[Any], Any]) -> None:
    verdict = maintenance.split_by_pump.run(lambda _readings, outcomes, _share, _seed: kind(outcomes.index[:3]))

    assert "one Boolean for each row" in verdict.criteria[0].message


class Untrained:
    """Ranks rows by what is high in their first columns, and has learned nothing."""

    def __init__(self, columns: int) -> None:
        self.columns = columns

    def predict_proba(self, features: Any) -> Any:
        score = features.rank(pct=True).fillna(0.5).iloc[:, : self.columns].mean(axis=1).to_numpy()
        return np.column_stack([1 - score, score])


@pytest.mark.parametrize("columns", [1, 3, 5])
def test_a_model_that_has_learned_nothing_earns_nothing(columns: int) -> None:
    for seed in range(20):
        verdict = maintenance.build_pipeline.run(lambda _features, _labels, _train: Untrained(columns), seed=seed)
        assert verdict.points == 0, seed


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
