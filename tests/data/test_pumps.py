"""The simulated fleet: what it promises, and that predicting its failures is hard and possible."""

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kicourse.data import pumps


@pytest.fixture(scope="module")
def fleet() -> pumps.Fleet:
    return pumps.simulate(np.random.default_rng(1), pumps=300)


def test_one_seed_gives_one_fleet_and_another_seed_another() -> None:
    one, same, other = (pumps.simulate(np.random.default_rng(seed), pumps=20) for seed in (1, 1, 2))

    pd.testing.assert_frame_equal(one.readings, same.readings)
    pd.testing.assert_frame_equal(one.outcomes, same.outcomes)
    assert not one.readings.equals(other.readings)


def test_readings_hold_every_day_of_every_pump_and_nothing_after_its_last(fleet: pumps.Fleet) -> None:
    assert list(fleet.readings.columns) == ["pump", "day", "regime", *pumps.NAMES]
    days = fleet.readings.groupby("pump")["day"]
    assert (days.min() == 0).all()
    assert (days.max() == fleet.outcomes["last_day"]).all()
    assert (days.size() == fleet.outcomes["last_day"] + 1).all()
    assert fleet.readings["day"].equals(fleet.wear["day"])


def test_a_pump_fails_when_its_wear_reaches_its_limit_and_not_a_day_before(fleet: pumps.Fleet) -> None:
    worst = fleet.wear.set_index("pump")[list(pumps.MODES)].max(axis=1)
    failed = fleet.outcomes.index[fleet.outcomes["failed"]]
    final = worst.groupby("pump").last()
    before = worst.groupby("pump").nth(-2)

    assert (final[failed] > 0.95).all()
    assert (final.drop(failed) < 1.05).all()
    assert (before < 1.05).all()


def test_wear_never_heals(fleet: pumps.Fleet) -> None:
    growth = fleet.wear.groupby("pump")[list(pumps.MODES)].diff()

    assert not (growth < 0).to_numpy().any()


def test_both_modes_occur_and_many_pumps_are_censored(fleet: pumps.Fleet) -> None:
    outcomes = fleet.outcomes

    assert outcomes["failed"].mean() == pytest.approx(0.45, abs=0.1)
    assert outcomes.loc[outcomes["failed"], "mode"].value_counts(normalize=True).min() > 0.3
    assert outcomes.loc[~outcomes["failed"], "mode"].isna().all()


@pytest.mark.parametrize(
    ("sensor", "mode"),
    [("vibration", "bearing"), ("bearing_temperature", "bearing"), ("flow", "seal"), ("seal_leakage", "seal")],
)
def test_a_worn_part_shows_in_its_own_sensors(fleet: pumps.Fleet, sensor: str, mode: str) -> None:
    readings, wear = fleet.readings, fleet.wear
    (other,) = set(pumps.MODES) - {mode}
    worn = (wear[mode] > 0.9) & (wear[other] < 0.6)
    fresh = (wear[mode] < 0.6) & (wear[other] < 0.6)
    spread = next(s.spread for s in pumps.SENSORS if s.name == sensor)

    assert abs(readings.loc[worn, sensor].mean() - readings.loc[fresh, sensor].mean()) > spread
    unrelated = readings["suction_pressure"]
    assert abs(unrelated[worn].mean() - unrelated[fresh].mean()) < 0.05


def test_regimes_occur_as_often_as_they_say_and_move_the_sensors(fleet: pumps.Fleet) -> None:
    shares = fleet.readings["regime"].value_counts(normalize=True)
    flow = fleet.readings.groupby("regime")["flow"].mean()

    for regime in pumps.REGIMES:
        assert shares[regime.name] == pytest.approx(regime.share, abs=0.02)
    assert list(flow[[regime.name for regime in pumps.REGIMES]]) == sorted(flow)


def test_some_readings_are_lost_in_gaps_and_some_sensors_hang(fleet: pumps.Fleet) -> None:
    vibration = fleet.readings["vibration"]
    lost = vibration.isna()
    frozen = vibration.diff() == 0

    assert lost.mean() == pytest.approx(0.04, abs=0.01)
    assert lost[lost.shift(1, fill_value=False)].mean() > 0.4, "a lost reading is mostly followed by another"
    assert 0.002 < frozen.mean() < 0.02


def test_failure_can_be_predicted_far_better_than_chance_and_far_from_perfectly(fleet: pumps.Fleet) -> None:
    readings, outcomes = fleet.readings, fleet.outcomes
    left = readings["pump"].map(outcomes["last_day"]) - readings["day"]
    failed = readings["pump"].map(outcomes["failed"]).astype(bool)
    known = failed | (left >= 14)
    soon = failed & (left < 14)
    test = known & readings["pump"].isin(outcomes.index[::3])
    train = known & ~readings["pump"].isin(outcomes.index[::3])
    names = list(pumps.NAMES)
    windows = readings.groupby("pump")[names].rolling(14, min_periods=1).mean().reset_index(level=0, drop=True)

    def average_precision(features: pd.DataFrame) -> float:
        model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
        model.fit(features[train], soon[train])
        return float(average_precision_score(soon[test], model.predict_proba(features[test])[:, 1]))

    single, window = average_precision(readings[names]), average_precision(windows)
    assert soon[test].mean() * 4 < single < 0.42
    assert single + 0.1 < window < 0.65
