"""Correct solutions of `maintenance`, written another way than the unit's own."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.metrics import precision_recall_curve
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import RobustScaler

Booleans = NDArray[np.bool_]
Numbers = NDArray[np.float64]


def window_features(readings: pd.DataFrame, sensors: list[str], days: int) -> pd.DataFrame:
    parts = []
    for _, own in readings.groupby("pump", sort=False):
        days_back = np.stack([own[sensors].shift(back).to_numpy(dtype=float) for back in range(days)])
        present = ~np.isnan(days_back)
        count = present.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(present, days_back, 0).sum(axis=0) / count
            squares = np.where(present, (days_back - mean) ** 2, 0).sum(axis=0)
            deviation = np.where(count > 1, np.sqrt(squares / (count - 1)), np.nan)
        columns = [f"{sensor}_std" for sensor in sensors] + [f"{sensor}_mean" for sensor in sensors]
        parts.append(pd.DataFrame(np.hstack([deviation, mean]), columns=columns, index=own.index))
    return pd.concat(parts).reindex(readings.index)


def split_by_pump(readings: pd.DataFrame, outcomes: pd.DataFrame, test_share: float, seed: int) -> pd.Series:
    rng = np.random.default_rng(seed)
    test: set[str] = set()
    for fate in (True, False):
        group = outcomes.index[outcomes["failed"] == fate].to_numpy()
        test.update(rng.permutation(group)[: max(1, round(test_share * len(group)))])
    return readings["pump"].map(lambda pump: pump in test)


def build_pipeline(features: pd.DataFrame, labels: pd.Series, train: Booleans) -> Pipeline:
    rows = features.loc[train]
    targets = labels.loc[train].dropna().astype(int)
    pipeline = Pipeline(
        [
            ("impute", SimpleImputer(strategy="median")),
            ("scale", RobustScaler()),
            ("classify", RandomForestClassifier(100, min_samples_leaf=5)),
        ]
    )
    return pipeline.fit(rows.loc[targets.index], targets)


def average_precision_interval(
    labels: Booleans,
    scores: Numbers,
    pumps: NDArray[np.str_],
    draw: Callable[[int], NDArray[np.int_]],
    rounds: int = 1000,
    level: float = 0.95,
) -> list[float]:
    groups = pd.DataFrame({"label": labels, "score": scores}).groupby(pumps, sort=False)
    tables = [table for _, table in groups]
    values = []
    for _ in range(rounds):
        fleet = pd.concat([tables[number] for number in draw(len(tables))])
        if fleet["label"].sum() == 0:
            continue
        precision, recall, _ = precision_recall_curve(fleet["label"], fleet["score"])
        values.append(float(-np.sum(np.diff(recall) * precision[:-1])))
    percentages = [50 * (1 - level), 50 * (1 + level)]
    return [float(end) for end in np.percentile(values, percentages)]


def best_threshold(labels: Booleans, scores: Numbers, tuning: Booleans, inspection: float, failure: float) -> float:
    order = np.argsort(-scores[tuning])
    ranked, failing = scores[tuning][order], labels[tuning][order]
    alarms = np.arange(len(ranked) + 1)
    missed = failing.sum() - np.concatenate([[0], np.cumsum(failing)])
    cuts = np.concatenate([[True], ranked[:-1] != ranked[1:], [True]])  # no threshold lies between equal scores
    best = int(np.argmin(np.where(cuts, inspection * alarms + failure * missed, np.inf)))
    if best == 0:
        return float(ranked[0] + 1)
    return float(ranked[best - 1])
