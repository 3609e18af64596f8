"""The checks of `maintenance`: predict failure before it happens."""

from collections.abc import Callable, Iterator
from itertools import cycle, product
from typing import Any

import lazy_loader

from kicourse.answers import AnswerRefused
from kicourse.checks import Check, Handle, Trial, _, as_tuple

np = lazy_loader.load("numpy")
pd = lazy_loader.load("pandas")

# ---------------------------------------------------------------- window_features

window_features = Check(
    "maintenance",
    "window_features",
    title=_("Features that look back"),
    hints=(
        _("What may a feature of Tuesday know? Nothing of Wednesday, and nothing of another pump."),
        _("pandas rolls within groups: `readings.groupby(...)[sensors].rolling(...)` has `mean()` and `std()`. Which "
          "argument lets a window begin before it is full? The result is sorted by pump, so bring it back into the "
          "order of `readings`."),
        _("`means = readings.groupby(\"pump\")[sensors].rolling(days, min_periods=1).mean().droplevel(\"pump\")`, and "
          "in the same way the deviations. `add_suffix` names the columns, `join` sets the two side by side. What "
          "brings the rows into the order of `readings.index`?"),
    ),
)  # fmt: skip


def _readings(rng: Any, pumps: int, days: int = 24, sensors: int = 2) -> Any:
    """Complete readings in the order of the days, the pumps by turns; the index is not 0, 1, 2, ..."""
    count = pumps * days
    names = rng.permutation([f"P{number:02d}" for number in range(1, pumps + 1)])
    frame = pd.DataFrame({"pump": np.tile(names, days), "day": np.repeat(np.arange(days), pumps)})
    level = np.tile(rng.uniform(5, 50, size=(pumps, sensors)), (days, 1))
    for column, name in enumerate(("flow", "vibration", "noise_level")[:sensors]):
        frame[name] = level[:, column] + rng.normal(size=count)
    frame.index = pd.Index(np.sort(rng.choice(10 * count, size=count, replace=False)))
    return frame


def _window_oracle(readings: Any, sensors: list[str], days: int) -> Any:
    """Mean and deviation of every window, one window at a time."""
    values = {f"{sensor}_{kind}": np.full(len(readings), np.nan) for kind in ("mean", "std") for sensor in sensors}
    for rows in readings.groupby("pump").indices.values():
        for sensor in sensors:
            own = readings[sensor].to_numpy()[rows]
            for position, row in enumerate(rows):
                window = own[max(0, position - days + 1) : position + 1]
                window = window[~np.isnan(window)]
                if len(window):
                    values[f"{sensor}_mean"][row] = window.mean()
                if len(window) > 1:
                    values[f"{sensor}_std"][row] = window.std(ddof=1)
    return pd.DataFrame(values, index=readings.index)


def _features(trial: Trial, answer: Handle, readings: Any, sensors: list[str], days: int) -> Any:
    """Call the answer; what it returns must be a table with the right columns and the rows of `readings`."""
    got = answer.allowing_nonfinite()(readings, sensors, days)
    trial.is_a(got, pd.DataFrame)
    wanted = [f"{sensor}_{kind}" for kind in ("mean", "std") for sensor in sensors]
    trial.require(
        sorted(map(str, got.columns)) == sorted(wanted),
        _("The columns are {found}."),
        found=", ".join(map(str, got.columns)),
        expected=", ".join(wanted),
    )
    _same_rows(trial, got.index, readings.index)
    return got


def _same_rows(trial: Trial, found: Any, wanted: Any) -> None:
    expected = trial.text(_("{count} rows: {first} …"), count=len(wanted), first=", ".join(map(str, wanted[:5])))
    trial.require(
        not any(isinstance(label, tuple) for label in found),  # so an index of two levels arrives
        _("The index has two levels: grouping has put the pump in front of the row. `droplevel` takes it away."),
        expected=expected,
    )
    same = sorted(map(str, found)) == sorted(map(str, wanted))
    trial.require(
        same or len(found) != len(wanted),
        _("The result has as many rows as `readings`, but another index: keep the index of `readings`."),
        expected=expected,
    )
    trial.require(
        same,
        _("The result has {count} rows, and they are not those of `readings`."),
        count=len(found), expected=expected,
    )  # fmt: skip
    trial.require(
        list(found) == list(wanted),
        _("The rows are those of `readings`, but in another order, and row by row they will meet the labels."),
        expected=expected,
    )


def _same_features(trial: Trial, got: Any, readings: Any, sensors: list[str], days: int, message: str) -> None:
    expected = _window_oracle(readings, sensors, days)
    for column in expected.columns:
        found, wanted = got[column].to_numpy(dtype=float), expected[column].to_numpy()
        near = (np.isnan(found) & np.isnan(wanted)) | (np.abs(found - wanted) <= 1e-6 + 1e-6 * np.abs(wanted))
        row = int(np.argmin(near))
        trial.require(
            near.all(),
            message,
            column=column,
            pump=str(readings["pump"].iloc[row]),
            day=int(readings["day"].iloc[row]),
            found=float(found[row]),
            wanted=float(wanted[row]),
            expected=float(wanted[row]),
        )


@window_features.criterion(
    _("describes the last days of one pump"),
    points=0.5,
    why=_("One noisy reading says little; the mean of the last days shows a drift, their deviation an unsteady run."),
)
def one_pump(trial: Trial, answer: Handle) -> None:
    for days in (3, 7):
        readings = _readings(trial.rng, pumps=1, days=12)
        got = _features(trial, answer, readings, ["flow", "vibration"], days)
        _same_features(
            trial, got, readings, ["flow", "vibration"], days,
            _("`{column}` on day {day} is {found}, not {wanted}."),
        )  # fmt: skip


@window_features.criterion(
    _("keeps the pumps apart, and the rows in their order"),
    points=0.5,
    why=_("A window that runs from one pump into another describes neither."),
)
def pumps_apart(trial: Trial, answer: Handle) -> None:
    for pumps in (2, 4):
        readings = _readings(trial.rng, pumps=pumps)
        readings.index = pd.Index(trial.rng.permutation(readings.index))
        got = _features(trial, answer, readings, ["vibration", "flow"], 5)
        _same_features(
            trial, got, readings, ["vibration", "flow"], 5,
            _("`{column}` of pump {pump} on day {day} is {found}, not {wanted}: does another pump take part?"),
        )  # fmt: skip


@window_features.criterion(
    _("makes do with the readings that are there"),
    points=0.5,
    why=_("Lost readings are lost. What is filled in was never measured, and a window of the last days ends there, "
          "however few readings it holds."),
)  # fmt: skip
def gaps(trial: Trial, answer: Handle) -> None:
    readings = _readings(trial.rng, pumps=3, sensors=3)
    sensors = ["flow", "vibration", "noise_level"]
    readings[sensors] = readings[sensors].mask(trial.rng.random((len(readings), 3)) < 0.4)
    readings.loc[readings["day"] < 2, "flow"] = np.nan
    got = _features(trial, answer, readings, sensors, 4)
    _same_features(
        trial, got, readings, sensors, 4,
        _("Where readings are missing, `{column}` of pump {pump} on day {day} is {found}, not {wanted}."),
    )  # fmt: skip


@window_features.criterion(
    _("knows nothing of the future"),
    points=0.5,
    why=_("On the day of the decision the future is not there yet. A feature that saw it in training promises a "
          "quality that nobody will ever get."),
)  # fmt: skip
def past_only(trial: Trial, answer: Handle) -> None:
    readings = _readings(trial.rng, pumps=3)
    sensors = ["flow", "vibration"]
    readings[sensors] = readings[sensors].mask(trial.rng.random((len(readings), 2)) < 0.2)
    today = 11
    someone = str(trial.rng.choice(readings["pump"].unique()))  # has a gap that only the future could fill
    readings.loc[readings["day"].eq(today) & readings["pump"].eq(someone), str(trial.rng.choice(sensors))] = np.nan
    later = readings["day"] > today
    changed = readings.copy()
    changed.loc[later, sensors] = trial.rng.uniform(500, 900, size=(int(later.sum()), 2))
    before, after = (_features(trial, answer, table, sensors, 6)[~later] for table in (readings, changed))
    same = before.fillna(-1).round(6).eq(after.fillna(-1).round(6))
    row = int(np.argmin(same.all(axis=1).to_numpy()))
    trial.require(
        same.all(axis=None),
        _("When only readings after day {today} change, the features of pump {pump} on day {day} change too."),
        today=today,
        pump=str(readings["pump"].iloc[row]),
        day=int(readings["day"].iloc[row]),
    )


def _rolled(readings: Any, sensors: list[str], windows: Any) -> Any:
    means = windows.mean().droplevel("pump").add_suffix("_mean")
    return means.join(windows.std().droplevel("pump").add_suffix("_std")).loc[readings.index]


@window_features.misconception(_("a centred window, half of which lies in the future"))
def centred(readings: Any, sensors: list[str], days: int) -> Any:
    return _rolled(readings, sensors, readings.groupby("pump")[sensors].rolling(days, min_periods=1, center=True))


@window_features.misconception(_("gaps filled backwards, with values that came later"))
def back_filled(readings: Any, sensors: list[str], days: int) -> Any:
    filled = readings.assign(**readings.groupby("pump")[sensors].bfill())
    return _rolled(readings, sensors, filled.groupby("pump")[sensors].rolling(days, min_periods=1))


@window_features.misconception(_("gaps filled with the last value that was known"))
def forward_filled(readings: Any, sensors: list[str], days: int) -> Any:
    filled = readings.assign(**readings.groupby("pump")[sensors].ffill())
    return _rolled(readings, sensors, filled.groupby("pump")[sensors].rolling(days, min_periods=1))


@window_features.misconception(_("windows over the whole table, across the pumps"))
def across_pumps(readings: Any, sensors: list[str], days: int) -> Any:
    windows = readings[sensors].rolling(days, min_periods=1)
    return windows.mean().add_suffix("_mean").join(windows.std().add_suffix("_std"))


@window_features.misconception(_("windows that stay empty until they are full (`min_periods` left out)"))
def only_full(readings: Any, sensors: list[str], days: int) -> Any:
    return _rolled(readings, sensors, readings.groupby("pump")[sensors].rolling(days))


@window_features.misconception(_("features in the order of the pumps, set beside rows in the order of the days"))
def out_of_order(readings: Any, sensors: list[str], days: int) -> Any:
    features = _rolled(readings, sensors, readings.groupby("pump")[sensors].rolling(days, min_periods=1))
    return features.loc[readings.sort_values(["pump", "day"]).index].set_axis(readings.index)


@window_features.misconception(_("the mean of everything since the first day, not of the last `days`"))
def since_the_start(readings: Any, sensors: list[str], days: int) -> Any:
    return _rolled(readings, sensors, readings.groupby("pump")[sensors].expanding())


@window_features.misconception(_("windows without today: they end yesterday"))
def without_today(readings: Any, sensors: list[str], days: int) -> Any:
    earlier = readings.assign(**readings.groupby("pump")[sensors].shift(1))
    return _rolled(readings, sensors, earlier.groupby("pump")[sensors].rolling(days, min_periods=1))


@window_features.misconception(_("windows of one day too many: `days` before today, and today"))
def one_day_more(readings: Any, sensors: list[str], days: int) -> Any:
    return _rolled(readings, sensors, readings.groupby("pump")[sensors].rolling(days + 1, min_periods=1))


@window_features.misconception(_("NumPy's deviation (`ddof=0`), not that of pandas"))
def population_deviation(readings: Any, sensors: list[str], days: int) -> Any:
    windows = readings.groupby("pump")[sensors].rolling(days, min_periods=1)
    means = windows.mean().droplevel("pump").add_suffix("_mean")
    return means.join(windows.std(ddof=0).droplevel("pump").add_suffix("_std")).loc[readings.index]


@window_features.misconception(_("rows sorted by their index, which is not the order of `readings`"))
def sorted_by_index(readings: Any, sensors: list[str], days: int) -> Any:
    windows = readings.groupby("pump")[sensors].rolling(days, min_periods=1)
    return _rolled(readings, sensors, windows).sort_index()


@window_features.misconception(_("the last `days` readings that are there, however long ago, not the last `days` days"))
def gaps_closed(readings: Any, sensors: list[str], days: int) -> Any:
    features = pd.DataFrame(index=readings.index)
    for sensor in sensors:
        present = readings.dropna(subset=[sensor])
        windows = present.groupby("pump")[sensor].rolling(days, min_periods=1)
        features[f"{sensor}_mean"] = windows.mean().droplevel("pump")
        features[f"{sensor}_std"] = windows.std().droplevel("pump")
    return features


window_features.equivalent(
    'windows = readings.groupby("pump")[sensors].rolling(days, min_periods=1)',
    'windows = readings.groupby("pump")[sensors].rolling(days, min_periods=0)',
    reason="The mean of no reading at all is NaN either way.",
)

# ---------------------------------------------------------------- split_by_pump

split_by_pump = Check(
    "maintenance",
    "split_by_pump",
    title=_("An honest split"),
    hints=(
        _("Tomorrow's readings of a pump look like today's. What, then, has to stay together?"),
        _("Split the table of pumps, not the table of readings, with failed and censored pumps in proportion "
          "(scikit-learn calls it `stratify`). Then ask of each reading on which side its pump is."),
        _("`train_test_split(outcomes.index, test_size=..., stratify=outcomes[\"failed\"], random_state=...)` gives "
          "two sets of pumps, those for training first. `readings[\"pump\"].isin(...)` says which rows are theirs."),
    ),
)  # fmt: skip


def _history(rng: Any, pumps: int, failed: int) -> tuple[Any, Any]:
    """Readings (only `pump` and `day` matter), the pumps by turns, and outcomes, the failed ones anywhere in them."""
    names = [f"P{number:03d}" for number in rng.choice(900, size=pumps, replace=False)]
    lengths = rng.integers(5, 15, size=pumps)
    readings = pd.DataFrame({"pump": np.repeat(names, lengths), "day": np.concatenate([np.arange(n) for n in lengths])})
    readings = readings.sort_values("day", kind="stable", ignore_index=True)
    readings["vibration"] = rng.normal(2.5, 0.5, size=len(readings))
    fate = rng.permutation(np.arange(pumps) < failed)
    outcomes = pd.DataFrame({"last_day": lengths - 1, "failed": fate}, index=pd.Index(names, name="pump"))
    return readings, outcomes.loc[rng.permutation(names)]


def _test_rows(trial: Trial, answer: Handle, readings: Any, outcomes: Any, share: float, seed: int) -> Any:
    """Call the answer; what it returns must be a Boolean for each row, with some rows on each side."""
    each = _("Return one Boolean for each row of `readings`, in an array of the dtype bool, and not the pumps.")
    try:
        got = answer(readings, outcomes, share, seed)
    except AnswerRefused as refused:
        trial.require(not any(kind in refused.found for kind in ("dtype object", "Index")), each)  # names in pandas
        raise
    if type(got).__name__ == "Series":
        got = got.to_numpy()
    trial.require(getattr(getattr(got, "dtype", None), "kind", "") not in ("O", "U"), each)
    trial.array(got, shape=(len(readings),))
    trial.require(
        got.dtype == bool,
        _("The array holds {found}, not Booleans: True for a row of the test side."),
        found=str(got.dtype),
        expected="bool",
    )
    trial.require(got.any() and not got.all(), _("All {count} rows are on one side."), count=len(got))
    return got


@split_by_pump.criterion(_("puts every row on one of two sides"))
def two_sides(trial: Trial, answer: Handle) -> None:
    _test_rows(trial, answer, *_history(trial.rng, 10, 5), 0.4, 1)


@split_by_pump.criterion(
    _("never splits a pump"),
    points=1,
    gate=True,
    why=_("Two readings of one pump resemble each other. With one in training and one in the test, a model can "
          "recognise the pump instead of its wear, and the test praises it for that."),
)  # fmt: skip
def pumps_whole(trial: Trial, answer: Handle) -> None:
    for pumps, share in ((12, 0.4), (24, 0.3)):
        readings, outcomes = _history(trial.rng, pumps, pumps // 3)
        test = _test_rows(trial, answer, readings, outcomes, share, int(trial.rng.integers(1000)))
        sides = pd.Series(test).groupby(readings["pump"].to_numpy()).nunique()
        trial.require(
            (sides == 1).all(),
            _("Pump {pump} has rows on both sides."),
            pump=str(sides.idxmax()),
            expected=trial.text(_("each pump on one side only")),
        )


@split_by_pump.criterion(
    _("sends the right share of the failed pumps, and of the others, to the test side"),
    points=0.5,
    why=_("Failures are rare. Left to chance, one side may have none: then there is nothing to learn from, or "
          "nothing to test with."),
)  # fmt: skip
def in_proportion(trial: Trial, answer: Handle) -> None:
    for number, rng in enumerate(trial.rng.spawn(12)):
        share = float(rng.choice([0.2, 0.25, 0.3, 0.4]))
        failed = int(np.ceil(1.5 / share))
        others = int(rng.integers(35, 65)) if number % 3 else 40  # of 40 each share is a whole number
        readings, outcomes = _history(rng, failed + others, failed)
        readings.index = pd.Index(rng.permutation(len(readings)) + 100)
        test = _test_rows(trial, answer, readings, outcomes, share, int(rng.integers(1000)))
        chosen = outcomes.index.isin(readings["pump"][test])
        for fate, message in (
            (True, _("{count} of {total} failed pumps are on the test side; the share is {share}.")),
            (False, _("{count} of {total} pumps that did not fail are on the test side; the share is {share}.")),
        ):
            total = int((outcomes["failed"] == fate).sum())
            count = int((chosen & (outcomes["failed"] == fate)).sum())
            rounded = np.floor(share * total + 1e-9), np.ceil(share * total - 1e-9)
            ok = rounded[0] <= count <= rounded[1] and 0 < count < total
            expected = trial.text(_("about {wanted}, at least 1"), wanted=round(share * total, 1))
            trial.require(ok, message, count=count, total=total, share=share, expected=expected)


@split_by_pump.criterion(
    _("gives the same split for the same seed, and another one for another"),
    points=0.5,
    why=_("A result that nobody can repeat convinces nobody; a split that never changes is a choice, not chance."),
)
def repeatable(trial: Trial, answer: Handle) -> None:
    readings, outcomes = _history(trial.rng, 60, 30)
    first, again, *others = (_test_rows(trial, answer, readings, outcomes, 0.3, seed) for seed in (5, 5, 6, 7, 8))
    trial.require((first == again).all(), _("Two calls with the same seed gave two different splits."))
    trial.require(
        any((first != other).any() for other in others), _("The seeds 5, 6, 7 and 8 all gave the same split.")
    )


@split_by_pump.misconception(_("a split of the rows, not of the pumps"))
def rows_split(readings: Any, outcomes: Any, test_share: float, seed: int) -> Any:
    from sklearn.model_selection import train_test_split

    _, test = train_test_split(np.arange(len(readings)), test_size=test_share, random_state=seed)
    return np.isin(np.arange(len(readings)), test)


@split_by_pump.misconception(_("a split by pump that leaves it to chance where the failures go"))
def left_to_chance(readings: Any, outcomes: Any, test_share: float, seed: int) -> Any:
    from sklearn.model_selection import train_test_split

    _, test = train_test_split(outcomes.index, test_size=test_share, random_state=seed)
    return readings["pump"].isin(test).to_numpy()


@split_by_pump.misconception(_("one side without any failures: the failed pumps all go to training"))
def failures_on_one_side(readings: Any, outcomes: Any, test_share: float, seed: int) -> Any:
    healthy = outcomes.index[~outcomes["failed"]]
    count = round(test_share * len(outcomes))
    test = np.random.default_rng(seed).choice(healthy, size=min(count, len(healthy)), replace=False)
    return readings["pump"].isin(test).to_numpy()


@split_by_pump.misconception(_("pumps in the order of `readings`, with the fates in the order of `outcomes`"))
def matched_by_position(readings: Any, outcomes: Any, test_share: float, seed: int) -> Any:
    from sklearn.model_selection import train_test_split

    names = readings["pump"].unique()
    _, test = train_test_split(names, test_size=test_share, stratify=outcomes["failed"], random_state=seed)
    return readings["pump"].isin(test).to_numpy()


@split_by_pump.misconception(_("training and test side swapped"))
def swapped(readings: Any, outcomes: Any, test_share: float, seed: int) -> Any:
    from sklearn.model_selection import train_test_split

    fate = outcomes["failed"]
    train, _test = train_test_split(outcomes.index, test_size=test_share, stratify=fate, random_state=seed)
    return readings["pump"].isin(train).to_numpy()


@split_by_pump.misconception(_("a split that ignores its seed"))
def seedless(readings: Any, outcomes: Any, test_share: float, seed: int) -> Any:
    from sklearn.model_selection import train_test_split

    _, test = train_test_split(outcomes.index, test_size=test_share, stratify=outcomes["failed"], random_state=0)
    return readings["pump"].isin(test).to_numpy()


# ---------------------------------------------------------------- build_pipeline

build_pipeline = Check(
    "maintenance",
    "build_pipeline",
    title=_("Impute, scale, classify"),
    hints=(
        _("Three steps in one estimator: `make_pipeline`. What each of them learns comes from training rows only."),
        _("Which rows may teach? Those of training pumps whose label is known. `labels.notna()` tells which those are; "
          "a censored row is neither healthy nor failing."),
        _("`usable = train & labels.notna().to_numpy()` marks the rows that may teach. Make the pipeline of an "
          "imputer, a scaler and a classifier, `fit` it on those rows of both tables, and return it."),
    ),
    seconds=30,
)  # fmt: skip

_COLUMNS = ("vibration_mean", "flow_mean", "seal_leakage_mean", "noise_level_mean", "motor_current_mean")
_ENOUGH = 0.55  # average precision that an honest pipeline reaches with room to spare; chance gives 0.1


def _both_ways(rng: Any) -> tuple[Any, Any]:
    """Which way each column moves before a failure: three of them, not all the same way, the others not at all.

    And the opposite: who learns nothing from the labels is wrong one time or the other.
    """
    tells = rng.permutation([1.0, -1.0, rng.choice([1.0, -1.0]), 0.0, 0.0])
    return tells, -tells


def _table(rng: Any, rows: int, tells: Any, shift: float = 0.0) -> tuple[Any, Any]:
    """Features with gaps and levels far from zero, and labels; `shift` moves what tells of failure."""
    labels = (np.arange(rows) < rows // 10).astype(float)
    values = rng.normal(size=(rows, len(_COLUMNS)))
    values += tells * (2.0 * labels[:, None] + shift)
    values = 400 + 2 * values
    values[rng.random(values.shape) < 0.15] = np.nan
    order = rng.permutation(rows)
    index = pd.Index(order + 100)
    return pd.DataFrame(values[order], columns=list(_COLUMNS), index=index), pd.Series(labels[order], index=index)


def _stacked(tables: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    features = pd.concat([features for features, _ in tables], ignore_index=True)
    return features, pd.concat([labels for _, labels in tables], ignore_index=True)


def _quality(trial: Trial, model: Handle, features: Any, labels: Any) -> float:
    """The average precision of a fitted pipeline on rows that it has not seen."""
    from sklearn.metrics import average_precision_score

    got = model.attribute("predict_proba")(features)
    trial.array(got, shape=(len(features), 2))
    return float(average_precision_score(labels.to_numpy(), got[:, 1].astype(float)))


def _learns(trial: Trial, quality: float, message: str) -> None:
    trial.require(quality >= _ENOUGH, message, quality=round(quality, 2), expected=f"≥ {_ENOUGH}")


@build_pipeline.criterion(
    _("ranks pumps that it has never seen, gaps and all"),
    points=0.5,
    why=_("What counts is what the fitted pipeline says of new rows; those have gaps too."),
)
def ranks_unseen(trial: Trial, answer: Handle) -> None:
    for tells in _both_ways(trial.rng):
        features, labels = _table(trial.rng, 600, tells)
        train = trial.rng.random(len(features)) < 0.7
        model = answer.make(features, labels, train)
        quality = _quality(trial, model, *_table(trial.rng, 600, tells))
        _learns(trial, quality, _("On unseen rows the average precision is {quality}; chance gives 0.1."))


@build_pipeline.criterion(
    _("learns from training rows only, in every step"),
    points=0.5,
    why=_("A median or a scale taken from test rows is knowledge of the test. The result looks better than it is, "
          "or, as here, is spoilt by rows that should not have counted."),
)  # fmt: skip
def training_rows_only(trial: Trial, answer: Handle) -> None:
    message = _(
        "The rows outside `train` held absurd values and wrong labels, and the average precision fell to {quality}."
    )
    for tells in _both_ways(trial.rng):
        honest, misleading = _table(trial.rng, 400, tells), _table(trial.rng, 600, tells)
        misleading[0].iloc[:, tells != 0] *= -1e5
        features, labels = _stacked([honest, (misleading[0], 1 - misleading[1])])
        train = np.arange(len(features)) < len(honest[0])
        model = answer.make(features, labels, train)
        _learns(trial, _quality(trial, model, *_table(trial.rng, 600, tells)), message)


@build_pipeline.criterion(
    _("leaves censored rows out"),
    points=0.5,
    why=_("Nobody knows whether a censored pump failed the day after. Called healthy, it teaches the model that late "
          "signs of wear mean nothing; called failing, the reverse. The imputer and the scaler learn from the same "
          "rows as the classifier."),
)  # fmt: skip
def censored_left_out(trial: Trial, answer: Handle) -> None:
    worn_then_absurd = 1, -1e5
    for tells, factor in zip(_both_ways(trial.rng), worn_then_absurd, strict=True):
        censored, _labels = _table(trial.rng, 600, tells, shift=4.0)
        censored.iloc[:, tells != 0] *= factor
        unknown = pd.Series(np.nan, index=censored.index)
        features, labels = _stacked([_table(trial.rng, 400, tells), (censored, unknown)])
        model = answer.make(features, labels, np.ones(len(features), dtype=bool))
        quality = _quality(trial, model, *_table(trial.rng, 600, tells))
        _learns(
            trial, quality,
            _("Most of the labels were NaN, and the average precision fell to {quality}: what did those rows teach, "
              "and which step?"),
        )  # fmt: skip


@build_pipeline.criterion(
    _("does not care about units"),
    points=0.5,
    why=_("Bar or pascal, the pump is the same. Without scaling, a feature counts for more when its unit is small."),
)
def units(trial: Trial, answer: Handle) -> None:
    for tells in _both_ways(trial.rng):
        # What tells of failure is told in a large unit, so in small numbers.
        powers = np.where(tells != 0, -1, 1) * trial.rng.integers(3, 5, size=len(tells))
        factors = pd.Series(10.0**powers, index=list(_COLUMNS))
        features, labels = _table(trial.rng, 500, tells)
        model = answer.make(features * factors, labels, np.ones(len(features), dtype=bool))
        unseen, truth = _table(trial.rng, 600, tells)
        quality = _quality(trial, model, unseen * factors, truth)
        _learns(trial, quality, _("With every column in another unit, the average precision fell to {quality}."))


def _fit(steps: Callable[[], list[Any]]) -> Any:
    """Make a build_pipeline out of its steps, fitted on the right rows."""

    def build(features: Any, labels: Any, train: Any) -> Any:
        from sklearn.pipeline import make_pipeline

        known = train & labels.notna().to_numpy()
        return make_pipeline(*steps()).fit(features[known], labels[known])

    return build


def _steps() -> list[Any]:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    return [SimpleImputer(), StandardScaler(), LogisticRegression()]


@build_pipeline.misconception(_("a pipeline fitted on all rows, those of the test included"))
def fitted_on_everything(features: Any, labels: Any, train: Any) -> Any:
    return _fit(_steps)(features, labels, np.ones(len(features), dtype=bool))


def _prepared_on(rows: Any, features: Any, labels: Any, train: Any) -> Any:
    from sklearn.pipeline import make_pipeline

    imputer, scaler, classifier = _steps()
    make_pipeline(imputer, scaler).fit(features[rows])
    known = train & labels.notna().to_numpy()
    classifier.fit(scaler.transform(imputer.transform(features[known])), labels[known])
    return make_pipeline(imputer, scaler, classifier)


@build_pipeline.misconception(
    _("an imputer and a scaler fitted on the censored rows too, which only the classifier leaves out")
)
def prepared_on_censored(features: Any, labels: Any, train: Any) -> Any:
    return _prepared_on(train, features, labels, train)


@build_pipeline.misconception(_("an imputer and a scaler fitted on all rows, and a classifier on the training rows"))
def prepared_on_everything(features: Any, labels: Any, train: Any) -> Any:
    return _prepared_on(np.ones(len(features), dtype=bool), features, labels, train)


@build_pipeline.misconception(_("censored rows taken for healthy ones"))
def censored_as_healthy(features: Any, labels: Any, train: Any) -> Any:
    return _fit(_steps)(features, labels.fillna(0.0), train)


@build_pipeline.misconception(_("censored rows taken for failing ones"))
def censored_as_failing(features: Any, labels: Any, train: Any) -> Any:
    return _fit(_steps)(features, labels.fillna(1.0), train)


@build_pipeline.misconception(_("gaps and scales mended outside the pipeline, so that new rows arrive unprepared"))
def prepared_outside(features: Any, labels: Any, train: Any) -> Any:
    known = train & labels.notna().to_numpy()
    filled = features.fillna(features[known].mean())
    scaled = (filled - filled[known].mean()) / filled[known].std()
    return _steps()[2].fit(scaled[known], labels[known])


@build_pipeline.misconception(_("a pipeline that does not scale"), factory=True)
def unscaled() -> Any:
    return _fit(lambda: [_steps()[0], _steps()[2].set_params(max_iter=1000)])


@build_pipeline.misconception(_("gaps filled with zero"), factory=True)
def filled_with_zero() -> Any:
    return _fit(lambda: [_steps()[0].set_params(strategy="constant", fill_value=0.0), *_steps()[1:]])


build_pipeline.equivalent(
    "pipeline = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())",
    "pipeline = make_pipeline(StandardScaler(), SimpleImputer(), LogisticRegression())",
    reason="The scaler lets gaps pass, and filling them with the mean after scaling is the same.",
)

# ---------------------------------------------------------------- average_precision_interval

average_precision_interval = Check(
    "maintenance",
    "average_precision_interval",
    title=_("How sure are we?"),
    hints=(
        _("What would another fleet have shown? Imitate it: what was drawn independently, and can be drawn again?"),
        _("Draw pumps, not rows: `draw(len(names))` for `names = np.unique(pumps)`. A pump drawn twice brings its rows "
          "twice. A round without any failure has no average precision."),
        _("Prepare the row numbers of each pump: `rows = [np.flatnonzero(pumps == name) for name in names]`. A round's "
          "rows are `np.concatenate([rows[number] for number in draw(len(names))])`; collect their average precision "
          "if a label among them is true. At the end, `np.quantile` at both tails."),
    ),
    seconds=20,
)  # fmt: skip


def _scored(rng: Any, failing_rows: list[int], rows: int = 12) -> tuple[Any, Any, Any]:
    """Labels, scores and pumps: for each pump, how many of its rows come before a failure."""
    names = [f"P{number:02d}" for number in np.sort(rng.choice(90, size=len(failing_rows), replace=False))]
    lengths = [rows + int(extra) for extra in rng.integers(0, 5, size=len(failing_rows))]
    pumps = np.repeat(names, lengths)
    labels = np.concatenate([np.arange(n) >= n - failing for n, failing in zip(lengths, failing_rows, strict=True)])
    skill = np.repeat(rng.uniform(-0.5, 2.5, size=len(failing_rows)), lengths)
    scores = skill * labels + rng.normal(size=len(labels))
    order = rng.permutation(len(labels))
    return labels[order], scores[order], pumps[order]


def _average_precision(labels: Any, scores: Any) -> float:
    """The average precision as scikit-learn defines it, which spends a millisecond on looking at its arguments."""
    order = np.argsort(-scores)
    labels, scores = labels[order], scores[order]
    thresholds = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    found = np.cumsum(labels)[thresholds]
    return float(np.sum(np.diff(found, prepend=0) * found / (thresholds + 1)) / found[-1])


def _every_value(labels: Any, scores: Any, pumps: Any) -> list[float]:
    """The average precision for every way to draw the pumps, once, where it is defined."""
    rows = [np.flatnonzero(pumps == name) for name in np.unique(pumps)]
    samples = [np.concatenate([rows[i] for i in drawn]) for drawn in product(range(len(rows)), repeat=len(rows))]
    return [_average_precision(labels[s], scores[s]) for s in samples if labels[s].any()]


def _every_fleet(trial: Trial, pumps: int) -> tuple[Callable[[int], Any], Any, list[Any]]:
    """Make a `draw` that runs once through every way to draw the pumps, the ways, and a list of what it was asked.

    With every way drawn once the interval is exact, in whatever order an answer keeps the pumps.
    """
    ways = trial.rng.permutation(np.array(list(product(range(pumps), repeat=pumps))))
    waiting: Iterator[Any] = cycle(ways)
    generator = trial.rng.spawn(1)[0]
    asked: list[Any] = []

    def draw(size: int) -> Any:
        asked.append(size)
        return next(waiting) if size == pumps else generator.integers(size, size=min(size, 10_000))

    return draw, ways, asked


def _try_interval(
    trial: Trial, answer: Handle, failing_rows: list[int], level: float, message: str, *other_tails: float
) -> None:
    """Call the answer and require the exact interval, or the one that cuts off one of `other_tails` at each end."""
    labels, scores, pumps = _scored(trial.rng, failing_rows)
    count = len(failing_rows)
    draw, ways, asked = _every_fleet(trial, count)
    got = answer(labels, scores, pumps, draw, rounds=len(ways), level=level)
    trial.require(asked, _("`draw` was never called: which fleets did you imitate?"))
    for size in asked:
        trial.require(
            size == count,
            _("You called `draw({found})`, and there are {count} pumps and {rows} rows."),
            found=size, count=count, rows=len(labels), expected=f"draw({count})",
        )  # fmt: skip
    trial.require(
        len(asked) == len(ways),
        _("`draw` was called {found} times in {rounds} rounds."),
        found=len(asked), rounds=len(ways), expected=len(ways),
    )  # fmt: skip
    ends = _two_ends(trial, got)
    values = _every_value(labels, scores, pumps)
    wanted, *others = (np.quantile(values, [tail, 1 - tail]) for tail in ((1 - level) / 2, *other_tails))
    found, exact = (", ".join(f"{end:.4f}" for end in interval) for interval in (ends, wanted))
    near = any(np.allclose(ends, interval, rtol=0, atol=1e-6) for interval in (wanted, *others))
    trial.require(near, message, found=found, wanted=exact, level=level, expected=f"({exact})")


def _two_ends(trial: Trial, got: Any) -> list[float]:
    """The ends of an interval, however they were put together: a tuple, a list, an array or a named tuple."""
    got = as_tuple(got)
    if type(got) is np.ndarray:
        got = got.tolist()
    trial.is_a(got, (tuple, list))
    trial.require(len(got) == 2, _("An interval has two ends; you returned {count} values."), count=len(got))
    for end in got:
        trial.is_a(end, (float, int, np.float64))
    return [float(end) for end in got]


@average_precision_interval.criterion(
    _("resamples pumps, each as often as it was drawn"),
    points=1,
    why=_("Each round imitates one fleet that might have been: as many pumps, each with all of its rows, some of them "
          "twice. The interval is where the average precision of these fleets lies."),
)  # fmt: skip
def pumps_resampled(trial: Trial, answer: Handle) -> None:
    # How much to cut off is the business of `levels`.
    for failing_rows in ([4, 5, 3], [6, 2, 4]):
        _try_interval(
            trial, answer, failing_rows, 0.9,
            _("The interval is {found}, not {wanted}."), 0.1, 0.025,
        )  # fmt: skip


@average_precision_interval.criterion(
    _("leaves out rounds in which nothing failed"),
    points=0.5,
    why=_("Without a failure there is no average precision. Counting such a round as 0 drags the lower end down."),
)
def undefined_rounds(trial: Trial, answer: Handle) -> None:
    _try_interval(
        trial, answer, [5, 0, 0], 0.9,
        _("Where two of three pumps never failed, the interval is {found}, not {wanted}."), 0.1, 0.025,
    )  # fmt: skip


@average_precision_interval.criterion(
    _("cuts off half of what the level leaves at each end"),
    points=0.5,
    why=_("An interval of 80 % leaves 10 % below and 10 % above."),
)
def levels(trial: Trial, answer: Handle) -> None:
    for level in (0.8, 0.5, 0.95):
        _try_interval(
            trial, answer, [3, 4, 99], level,  # of the last pump every row fails: also a round of it alone counts
            _("At the level {level} the interval is {found}, not {wanted}."),
        )  # fmt: skip


def _bootstrap(labels: Any, scores: Any, samples: Iterator[Any], level: float, tail: float | None = None) -> Any:
    values = [_average_precision(labels[s], scores[s]) for s in samples if labels[s].any()]
    tail = (1 - level) / 2 if tail is None else tail
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _samples(pumps: Any, draw: Callable[[int], Any], rounds: int) -> Iterator[Any]:
    rows = [np.flatnonzero(pumps == name) for name in np.unique(pumps)]
    for _round in range(rounds):
        yield np.concatenate([rows[number] for number in draw(len(rows))])


@average_precision_interval.misconception(_("a bootstrap of rows, not of pumps"))
def rows_drawn(labels: Any, scores: Any, pumps: Any, draw: Any, rounds: int = 1000, level: float = 0.95) -> Any:
    return _bootstrap(labels, scores, (draw(len(labels)) for _round in range(rounds)), level)


@average_precision_interval.misconception(_("`isin`, which takes a pump that was drawn twice only once"))
def doubles_lost(labels: Any, scores: Any, pumps: Any, draw: Any, rounds: int = 1000, level: float = 0.95) -> Any:
    names = np.unique(pumps)
    samples = (np.flatnonzero(np.isin(pumps, names[draw(len(names))])) for _round in range(rounds))
    return _bootstrap(labels, scores, samples, level)


@average_precision_interval.misconception(_("rounds without a failure counted as an average precision of 0"))
def undefined_as_zero(labels: Any, scores: Any, pumps: Any, draw: Any, rounds: int = 1000, level: float = 0.95) -> Any:
    values = [
        _average_precision(labels[s], scores[s]) if labels[s].any() else 0.0 for s in _samples(pumps, draw, rounds)
    ]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@average_precision_interval.misconception(_("the whole of 1 − level cut off at each end"))
def whole_tails(labels: Any, scores: Any, pumps: Any, draw: Any, rounds: int = 1000, level: float = 0.95) -> Any:
    return _bootstrap(labels, scores, _samples(pumps, draw, rounds), level, tail=1 - level)


@average_precision_interval.misconception(_("always 95 %, whatever level was asked for"))
def level_ignored(labels: Any, scores: Any, pumps: Any, draw: Any, rounds: int = 1000, level: float = 0.95) -> Any:
    return _bootstrap(labels, scores, _samples(pumps, draw, rounds), 0.95)


@average_precision_interval.misconception(_("mean ± 1.96 standard deviations, as if the values were normal"))
def normal(labels: Any, scores: Any, pumps: Any, draw: Any, rounds: int = 1000, level: float = 0.95) -> Any:
    samples = _samples(pumps, draw, rounds)
    values = [_average_precision(labels[s], scores[s]) for s in samples if labels[s].any()]
    return float(np.mean(values) - 1.96 * np.std(values)), float(np.mean(values) + 1.96 * np.std(values))


@average_precision_interval.misconception(_("an average precision for each pump, and the mean of these"))
def mean_of_pumps(labels: Any, scores: Any, pumps: Any, draw: Any, rounds: int = 1000, level: float = 0.95) -> Any:
    rows = [np.flatnonzero(pumps == name) for name in np.unique(pumps)]
    values = []
    for _round in range(rounds):
        fleet = [rows[number] for number in draw(len(rows)) if labels[rows[number]].any()]
        if fleet:
            values.append(np.mean([_average_precision(labels[own], scores[own]) for own in fleet]))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


# ---------------------------------------------------------------- best_threshold

best_threshold = Check(
    "maintenance",
    "best_threshold",
    title=_("What an alarm costs"),
    hints=(
        _("Work out the cost of one threshold first: which rows are alarms, and which failures are missed?"),
        _("Only the scores that occur can change anything, so they are the candidates, and one more: a threshold above "
          "all of them, which never gives an alarm. Use the rows of `tuning` alone."),
        _("`candidates = np.append(np.unique(scores[tuning]), np.inf)`. For each of them `alarms = scores[tuning] >= "
          "candidate`, and the missed failures are `labels[tuning] & ~alarms`. Count both, put in the prices, and keep "
          "the cheapest candidate."),
    ),
)  # fmt: skip


def _decisions(rng: Any, rows: int) -> tuple[Any, Any]:
    """Labels and scores of decisions; the scores help, and are not probabilities."""
    labels = rng.random(rows) < 0.25
    scores = 3 * rng.normal(size=rows) + 4 * labels + rng.uniform(-20, 20)
    labels[[np.argmax(scores), np.argmin(scores)]] = (True, False)  # so that some alarms pay, and not all
    return labels, scores


def _cost(labels: Any, scores: Any, threshold: float, inspection: float, failure: float) -> float:
    alarms = scores >= threshold
    return float(inspection * alarms.sum() + failure * (labels & ~alarms).sum())


def _try_threshold(
    trial: Trial, answer: Handle, labels: Any, scores: Any, tuning: Any, inspection: float, failure: float
) -> float:
    """Call the answer and require the least possible cost on the rows for tuning; which threshold, does not matter."""
    got = answer.allowing_nonfinite()(labels, scores, tuning, inspection, failure)
    trial.require(
        type(got) in (float, int, np.float64, np.float32, np.int64) and got == got,
        _("You returned {found}, not a threshold: one number."),
        found=got if got is None or isinstance(got, float) else type(got).__name__,
    )
    labels, scores = labels[tuning], scores[tuning]
    candidates = [*scores, np.inf]
    least = min(_cost(labels, scores, candidate, inspection, failure) for candidate in candidates)
    cost = _cost(labels, scores, float(got), inspection, failure)
    trial.require(
        cost <= least * (1 + 1e-9),
        _("With an inspection at {inspection:g} € and a failure at {failure:g} €, the threshold {threshold:g} costs "
          "{cost} € on the {rows} rows for tuning; {least} € is possible."),
        inspection=inspection, failure=failure, threshold=float(got), cost=round(cost), rows=len(labels),
        least=round(least), expected=trial.text(_("a threshold that costs {least} €"), least=round(least)),
    )  # fmt: skip
    return float(got)


@best_threshold.criterion(
    _("finds the threshold of least cost"),
    points=0.25,
    why=_("Every alarm costs an inspection, needed or not, and every failure without an alarm costs a failure. No "
          "other figure of merit knows these two prices."),
)  # fmt: skip
def least_cost(trial: Trial, answer: Handle) -> None:
    for labels, scores in trial.cases(lambda rng, size: _decisions(rng, 3 * size)):
        tuning = np.ones(len(labels), dtype=bool)
        _try_threshold(trial, answer, labels, scores, tuning, 300.0, 1200.0)
        scores[np.argmax(scores)] += 1e6  # beside this one, all other scores lie close together
        _try_threshold(trial, answer, labels, scores, tuning, 300.0, 1200.0)
    # Of many rows the failures have the highest scores, and their number lies between two percentiles.
    count, failing = 1_001, 10 * int(trial.rng.integers(5, 40)) + 4
    ranks = trial.rng.permutation(count)
    scores = np.sort(trial.rng.normal(size=count))[::-1][ranks]
    _try_threshold(trial, answer, ranks < failing, scores, np.ones(count, dtype=bool), 300.0, 1200.0)


@best_threshold.criterion(
    _("rows of the same score are alarms together"),
    points=0.25,
    why=_("A forest gives the same score to many rows, and no threshold lies between them. Whoever goes down a sorted "
          "list row by row finds costs that no threshold has."),
)  # fmt: skip
def equal_scores(trial: Trial, answer: Handle) -> None:
    def draw(rng: Any, size: int) -> tuple[Any, Any]:
        paying = int(rng.integers(1, 2 + size))  # to how many scores it pays to go down; then one row in six fails
        groups = [[True, True, False] if place < paying else [True] + 5 * [False] for place in range(2 + size)]
        scores = np.repeat(np.sort(rng.uniform(-20, 20, size=len(groups)))[::-1], [len(group) for group in groups])
        labels = np.concatenate(groups)
        rows = np.argsort(labels, kind="stable")[:: 1 if size % 2 else -1]  # among equals, failures last or first
        return labels[rows], scores[rows]

    for labels, scores in trial.cases(draw, 8):
        _try_threshold(trial, answer, labels, scores, np.ones(len(labels), dtype=bool), 300.0, 1200.0)


@best_threshold.criterion(
    _("looks at the rows for tuning alone"),
    points=0.5,
    why=_(
        "A threshold that was chosen on the test rows has seen the exam. Its cost there says nothing about next year."
    ),
)
def tuning_rows_only(trial: Trial, answer: Handle) -> None:
    for labels, scores in trial.cases(lambda rng, size: _decisions(rng, 8 * size)):
        tuning = np.arange(len(labels)) % 8 < 3
        scores = np.where(tuning, scores, scores - 15)
        # So that neither never nor always to give an alarm is best here.
        labels[np.argmax(np.where(tuning, scores, -np.inf))] = True
        labels[np.argmin(np.where(tuning, scores, np.inf))] = False
        _try_threshold(trial, answer, labels, scores, tuning, 300.0, 1500.0)


@best_threshold.criterion(
    _("never gives an alarm where that is cheapest"),
    points=0.5,
    why=_(
        "If the scores are poor, or a failure is cheap, the best model is none. The numbers should be able to say so."
    ),
)
def never(trial: Trial, answer: Handle) -> None:
    for rng, level in zip(trial.rng.spawn(4), (0, 0, 0, 1e8), strict=True):
        labels, scores = _decisions(rng, 40)
        scores += level
        labels[np.argsort(scores)[-12:]] = False
        labels[np.argsort(scores)[:3]] = True
        threshold = _try_threshold(trial, answer, labels, scores, np.ones(40, dtype=bool), 500.0, 900.0)
        trial.require(threshold > scores.max(), _("The threshold {threshold} still gives alarms."), threshold=threshold)


@best_threshold.criterion(
    _("always gives an alarm where that is cheapest"),
    points=0.5,
    why=_("If a failure is ruinous, every pump is looked at, whatever its score."),
)
def always(trial: Trial, answer: Handle) -> None:
    for rng in trial.rng.spawn(4):
        labels, scores = _decisions(rng, 40)
        labels[np.argmin(scores)] = True
        threshold = _try_threshold(trial, answer, labels, scores, np.ones(40, dtype=bool), 10.0, 50000.0)
        trial.require(threshold <= scores.min(), _("The threshold {threshold} leaves pumps out."), threshold=threshold)


def _cheapest(labels: Any, scores: Any, candidates: Any, inspection: float, failure: float) -> float:
    costs = [_cost(labels, scores, candidate, inspection, failure) for candidate in candidates]
    return float(candidates[int(np.argmin(costs))])


@best_threshold.misconception(_("a threshold of 0.5, whatever a failure costs"))
def one_half(labels: Any, scores: Any, tuning: Any, inspection: float, failure: float) -> float:
    return 0.5


@best_threshold.misconception(_("a threshold tuned on the test rows too"))
def tuned_on_test(labels: Any, scores: Any, tuning: Any, inspection: float, failure: float) -> float:
    return _cheapest(labels, scores, np.append(np.unique(scores), np.inf), inspection, failure)


@best_threshold.misconception(_("a search that cannot choose to give no alarm at all"))
def never_forgotten(labels: Any, scores: Any, tuning: Any, inspection: float, failure: float) -> float:
    labels, scores = labels[tuning], scores[tuning]
    return _cheapest(labels, scores, np.unique(scores), inspection, failure)


@best_threshold.misconception(_("a search that cannot choose to alarm always"))
def always_forgotten(labels: Any, scores: Any, tuning: Any, inspection: float, failure: float) -> float:
    labels, scores = labels[tuning], scores[tuning]
    return _cheapest(labels, scores, np.append(np.unique(scores)[1:], np.inf), inspection, failure)


@best_threshold.misconception(_("the threshold of the best F1 score, which knows no prices"))
def best_f1(labels: Any, scores: Any, tuning: Any, inspection: float, failure: float) -> float:
    labels, scores = labels[tuning], scores[tuning]
    candidates = np.unique(scores)
    hits = np.array([(labels & (scores >= candidate)).sum() for candidate in candidates])
    alarms = np.array([(scores >= candidate).sum() for candidate in candidates])
    return float(candidates[np.argmax(2 * hits / (alarms + labels.sum()))])


@best_threshold.misconception(_("the ratio of the costs, which is right only if scores are true probabilities"))
def ratio(labels: Any, scores: Any, tuning: Any, inspection: float, failure: float) -> float:
    return inspection / failure


@best_threshold.misconception(_("a grid between 0 and 1, where these scores do not lie"))
def grid(labels: Any, scores: Any, tuning: Any, inspection: float, failure: float) -> float:
    return _cheapest(labels[tuning], scores[tuning], np.linspace(0, 1, 101), inspection, failure)


@best_threshold.misconception(_("a grid of evenly spaced thresholds, which misses what lies between two of them"))
def even_grid(labels: Any, scores: Any, tuning: Any, inspection: float, failure: float) -> float:
    labels, scores = labels[tuning], scores[tuning]
    candidates = np.append(np.linspace(scores.min(), scores.max(), 200), np.inf)
    return _cheapest(labels, scores, candidates, inspection, failure)


@best_threshold.misconception(_("an alarm only above the threshold, not at it"))
def strictly_above(labels: Any, scores: Any, tuning: Any, inspection: float, failure: float) -> float:
    labels, scores = labels[tuning], scores[tuning]
    candidates = np.append(np.unique(scores), np.inf)
    costs = [inspection * (scores > c).sum() + failure * (labels & (scores <= c)).sum() for c in candidates]
    return float(candidates[int(np.argmin(costs))])


@best_threshold.misconception(_("a bill on which only false alarms cost an inspection"))
def false_alarms_only(labels: Any, scores: Any, tuning: Any, inspection: float, failure: float) -> float:
    labels, scores = labels[tuning], scores[tuning]
    candidates = np.append(np.unique(scores), np.inf)
    costs = [inspection * (~labels & (scores >= c)).sum() + failure * (labels & (scores < c)).sum() for c in candidates]
    return float(candidates[int(np.argmin(costs))])


@best_threshold.misconception(_("the least cost itself, not the threshold that has it"))
def cost_returned(labels: Any, scores: Any, tuning: Any, inspection: float, failure: float) -> float:
    labels, scores = labels[tuning], scores[tuning]
    return min(_cost(labels, scores, candidate, inspection, failure) for candidate in (*scores, np.inf))


@best_threshold.misconception(_("the number of the best candidate in the list, not the candidate"))
def place_returned(labels: Any, scores: Any, tuning: Any, inspection: float, failure: float) -> int:
    labels, scores = labels[tuning], scores[tuning]
    candidates = np.append(np.unique(scores), np.inf)
    return int(np.argmin([_cost(labels, scores, candidate, inspection, failure) for candidate in candidates]))
