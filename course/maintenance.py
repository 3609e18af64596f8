# %% [markdown]
# # Predict failure before it happens
#
# Monday, seven in the morning, service desk of Harz Pumpen. At a dairy a pump stands still. A van leaves at once, with spare parts taken on a guess; until it arrives, the milk gets warm. Such a call costs **6,000 €**. A visit on an ordinary tour, a week earlier, would have cost **450 €**.
#
# Every pump reports eight measurements a day. In the next two hours you build a model that reads them and says, once in two weeks, which pumps to visit. You also find out how far to trust it, and how much it saves: at the end you write the half page that goes to management.

# %%
import kicourse
from kicourse.checks import maintenance as check

text = kicourse.start("maintenance")

# %%
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kicourse import plots
from kicourse.data import pumps

fleet = pumps.simulate(np.random.default_rng(7), pumps=200)
readings, outcomes = fleet.readings, fleet.outcomes
sensors = list(pumps.NAMES)

# %% [markdown]
# This is one of them. The dots are what its vibration sensor reported, one a day. The line in the lower picture is the wear of its bearing: nobody can measure it, and when it reaches 1, the pump stands still.

# %% tags=["demo"]
name = "P025"
own, wear = (table[table["pump"] == name] for table in (readings, fleet.wear))
figure = plots.figure(height=4.4)
upper, lower = figure.subplots(2, sharex=True, height_ratios=(2, 1))
upper.plot(own["day"], own["vibration"], ".", color=plots.GREY, label=text("a day's reading"))
upper.plot(
    own["day"], own["vibration"].rolling(14, min_periods=1).mean(), color=plots.BLUE, label=text("mean of 14 days")
)
upper.set(ylabel=text("vibration (mm/s)"), ylim=(0, 8), title=text("What the service desk sees"))
lower.plot(wear["day"], wear["bearing"], color=plots.RED)
lower.set(xlabel=text("days since installation"), ylabel=text("wear"), ylim=(0, 1.1), title=text("What happens inside"))
for axes in (upper, lower):
    axes.axvspan(own["day"].max() - 13, own["day"].max(), color=plots.ORANGE, alpha=0.25, label=text("last 14 days"))
upper.legend(loc="upper left", ncols=3)
plots.show(
    figure,
    alt=text(
        "Noisy vibration readings of one pump: only in the last weeks does their mean rise, while hidden wear grows steadily to 1."
    ),
)

# %% [markdown]
# In the orange strip an alarm would be worth 5,550 €. Your eye has it easy: it knows how the story ends. The model must decide on each day with what was known on that day. Keep this sentence: the costliest mistakes in this field break it.

# %% [markdown]
# ## 1. Where the data come from
#
# They are simulated, and you should know that. Real records of machines that ran until they broke are rare, because nobody lets a machine break on purpose, and no Python package brings any along. `kicourse.data.pumps` invents a fleet by a rule that you can read there:
#
# $$\text{reading}_t = \text{baseline}(\text{regime}_t) + \text{sensitivity}\cdot\text{wear}_t^{\,5} + \text{noise}_t$$
#
# Wear grows every day by chance, faster under load. The fifth power keeps it almost invisible until late. Readings get lost, sensors hang and repeat themselves for days. Whether your *real* pumps behave like this, only your real pumps can say; the method stays the same.

# %% tags=["demo"]
readings.groupby("pump").tail(1).head(6).round(2)

# %% tags=["demo"]
outcomes.head(6)

# %% [markdown]
# `readings` has a row for each pump and day, `outcomes` a row for each pump. A pump with `failed = False` did not live for ever: somebody stopped looking, because it was sold, the contract ended, or today is today. Its life is **censored**: longer than `last_day`, nobody knows how much.
#
# **Predict**, before you run the next cell: how many of the 200 pumps failed? What share of the readings is missing? Write your two numbers down. Being wrong now is how you learn what these data are like.

# %% tags=["demo"]
print(f"{outcomes['failed'].sum()} of {len(outcomes)} pumps failed:", outcomes["mode"].value_counts().to_dict())
print(f"{len(readings):,} rows, {readings[sensors].isna().to_numpy().mean():.1%} of the readings missing")

# %% [markdown]
# ## 2. What exactly is to be predicted?
#
# "Will it fail?" is no question for a model: every pump will. Ours is: **will it fail within the next 14 days, today included?** That is how far ahead the tours are planned. For each row there are three answers, not two.

# %%
HORIZON = 14


def fails_soon(readings: pd.DataFrame, outcomes: pd.DataFrame, horizon: int = HORIZON) -> pd.Series:
    """Label each row: 1 if the pump fails within `horizon` days, 0 if it lasts longer, NaN if nobody knows."""
    days_left = readings["pump"].map(outcomes["last_day"]) - readings["day"]
    failed = readings["pump"].map(outcomes["failed"])
    labels = pd.Series(np.nan, index=readings.index)
    labels[days_left >= horizon] = 0.0
    labels[failed & (days_left < horizon)] = 1.0
    return labels


labels = fails_soon(readings, outcomes)
known = labels.notna().to_numpy()

# %% tags=["demo"]
figure = plots.figure(height=3.8)
axes = figure.subplots()
shown = outcomes.iloc[20:34].sort_values("last_day")
for row, (last_day, failed) in enumerate(zip(shown["last_day"], shown["failed"], strict=True)):
    start = max(0, last_day - HORIZON + 1)
    axes.barh(row, start, color=plots.BLUE, height=0.55, label=text("0: lasts longer") if row == 0 else None)
    color, meaning = (plots.ORANGE, text("1: fails within 14 days")) if failed else (plots.GREY, text("unknown"))
    new = meaning not in axes.get_legend_handles_labels()[1]
    axes.barh(row, last_day + 1 - start, left=start, color=color, height=0.55, label=meaning if new else None)
    if failed:
        axes.plot(last_day + 5, row, "x", color=plots.RED, markersize=7, markeredgewidth=2)
axes.set(yticks=range(len(shown)), yticklabels=shown.index, xlabel=text("days since installation"), xlim=(0, 340))
axes.set_title(text("Three kinds of days (× = failure)"))
axes.grid(axis="y", visible=False)
axes.legend(loc="lower right")
plots.show(
    figure,
    alt=text(
        "A bar for each of 14 pumps: long blue stretches of healthy days, then 14 orange days before a failure, or 14 grey days of which nobody knows."
    ),
)

# %% [markdown]
# The grey days are the trap. Most programs have room for two labels only, so grey becomes "healthy". But a pump that was sold three days before it would have broken *was* about to break. Grey rows teach nothing, so they must not teach.
#
# **Predict:** how common is a 1 among the rows whose label is known: every second, every tenth, or every thirtieth?

# %% tags=["demo"]
print(f"share of 1: {labels.mean():.3f}; unknown: {labels.isna().mean():.3f}")
print(
    text("A 'model' that always answers 'healthy' is right in {share:.1%} of the cases.").format(
        share=1 - labels.mean()
    )
)

# %% [markdown]
# ## 3. A measure that the lazy model cannot please
#
# Accuracy praises the model that never warns. A better question: when I walk down the list of pumps, the riskiest first, how many of my visits are worth it? **Precision** is the share of visits so far that found a failing pump, **recall** the share of failing pumps found so far. **Average precision** is the mean of the precision at each failure found:
#
# $$\mathrm{AP}=\sum_n (R_n-R_{n-1})\,P_n$$

# %% tags=["demo"]
from sklearn.metrics import average_precision_score

ranked = np.array([1, 0, 1, 0, 0, 1, 0, 0, 0, 0], dtype=bool)  # the riskiest first; True: it does fail
precision = ranked.cumsum() / np.arange(1, len(ranked) + 1)
print("precision after each visit:", precision.round(2))
print(f"mean at the three failures: {precision[ranked].mean():.4f}")
print(f"scikit-learn says         : {average_precision_score(ranked, -np.arange(len(ranked))):.4f}")

# %% [markdown]
# A perfect ranking has an average precision of 1. A random one has the share of failures: here about 0.03, not 0.5. Remember that number whenever you read an average precision.
#
# **Change** the list: move the last `1` to the end. How much does one late failure cost?

# %% [markdown]
# ## 4. Features that look back
#
# One reading is mostly noise. The mean of some days is calmer, but lags behind. How many days are right? There is a wide range in which it hardly matters, as you will see in section 7; the extremes are what to avoid.

# %% tags=["demo"]
figure = plots.figure(height=3.2)
panels = figure.subplots(1, 3, sharey=True)
for axes, days in zip(panels, (3, 14, 42), strict=True):
    axes.plot(own["day"], own["vibration"], ".", color=plots.GREY, alpha=0.5, markersize=4)
    axes.plot(own["day"], own["vibration"].rolling(days, min_periods=1).mean(), color=plots.BLUE)
    axes.set(title=text("{days} days").format(days=days), xlabel=text("days since installation"))
    axes.axvspan(own["day"].max() - 13, own["day"].max(), color=plots.ORANGE, alpha=0.25)
panels[0].set_ylabel(text("vibration (mm/s)"))
plots.show(figure, alt=text("The same readings averaged over 3, 14 and 42 days: nervous, clear, and too late."))

# %% [markdown]
# pandas rolls a window over each group by itself. Look at the index of the result:

# %% tags=["demo"]
little = pd.DataFrame({"pump": ["A", "B", "A", "B", "A"], "flow": [60.0, 40.0, np.nan, 44.0, 54.0]})
print(little.groupby("pump")["flow"].rolling(2, min_periods=1).mean())

# %% [markdown]
# The pump has come in front of the row number, and the rows are sorted by pump; `.droplevel("pump")` takes the pump away, `.loc[...]` picks rows in any order you like. `min_periods=1` is content with one reading in a window; without it the gap would make two windows empty.
#
# **Predict:** `rolling(14, center=True)` follows the wear without a lag, and gives a better score in the test. Why must you not use it? (What does the value on the day of the decision contain?)
#
# ### Task: `window_features`
#
# Describe, for each row, the last `days` rows of the same pump, today's included (there is a row for each day): the mean and the standard deviation of each sensor.
#
# - The rows of `readings` are in order of time, but the pumps may take turns. The index is any, not sorted. The result has the same index in the same order.
# - At the beginning the window holds fewer days: use those. Missing readings are left out. With nothing to average, the feature is `NaN`; a deviation (pandas' own `std`) needs two readings.
# - Columns: `vibration_mean`, `vibration_std` and so on, for the given sensors.


# %% task="window_features"
def window_features(readings: pd.DataFrame, sensors: list[str], days: int) -> pd.DataFrame:
    """Return the mean and the standard deviation of each sensor over the pump's last `days` rows."""
    ### BEGIN SOLUTION
    windows = readings.groupby("pump")[sensors].rolling(days, min_periods=1)
    means = windows.mean().droplevel("pump").add_suffix("_mean")
    deviations = windows.std().droplevel("pump").add_suffix("_std")
    return means.join(deviations).loc[readings.index]
    ### END SOLUTION


# %% check="window_features"
check.window_features(window_features)

# %% tags=["demo"]
features = window_features(readings, sensors, days=14)

# %% [markdown]
# See what it does. Each sensor alone, as a ranking of all rows: how good is today's reading, how good is the mean of 14 days?

# %% tags=["demo"]
signs = np.where(np.isin(sensors, ["flow", "discharge_pressure"]), -1, 1)  # these two fall when the seal wears


def alone(table: pd.DataFrame) -> list[float]:
    filled = table.fillna(table.median())
    return [
        average_precision_score(labels[known], sign * filled[column][known])
        for column, sign in zip(filled, signs, strict=True)
    ]


pd.DataFrame(
    {
        text("today's reading"): alone(readings[sensors]),
        text("mean of 14 days"): alone(features[[f"{sensor}_mean" for sensor in sensors]]),
    },
    index=sensors,
).round(3)

# %% [markdown]
# For every sensor that knows anything, the mean is better, for vibration twice as good. Even so, vibration tells of bearings only, and nearly half of the failures are seals. `suction_pressure` says nothing at all; real data have such columns too, and nobody tells you which.

# %% [markdown]
# ## 5. Refresher: the pipeline of scikit-learn
#
# Everything in scikit-learn is an *estimator*: `fit` learns numbers from data, `transform` or `predict` applies them. Look at what each step learns, and from what.

# %% tags=["demo"]
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

flow = np.array([[60.0], [58.0], [np.nan], [62.0]])
imputer = SimpleImputer().fit(flow)
scaler = StandardScaler().fit(imputer.transform(flow))
print("the imputer learned the mean:", imputer.statistics_)
print("the scaler learned          :", scaler.mean_, "±", scaler.scale_.round(2))
print("a new pump with a gap       :", scaler.transform(imputer.transform([[np.nan], [30.0]])).ravel().round(2))

# %% [markdown]
# A *pipeline* chains such steps and is an estimator itself: `fit` fits one step after the other, `predict_proba` sends new rows through all of them. Its advantage is not that it is short. What a step learns, it learns where `fit` was called, and nowhere else; no mean of the test rows can slip in.

# %% tags=["demo"]
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

small = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
small.fit(flow, [0, 1, 0, 0])
print(small)
print("risk:", small.predict_proba([[57.0], [np.nan]])[:, 1].round(2))

# %% [markdown]
# ## 6. A deceptive split
#
# Now a strong model: a random forest. The obvious way to test it is to hold back 30 % of the rows, drawn at random. Run it, and then **predict** what the same forest reaches on pumps that it has never met.

# %% tags=["demo"]
from sklearn.ensemble import RandomForestClassifier


def forest_quality(train: NDArray[np.bool_], test: NDArray[np.bool_]) -> float:
    forest = make_pipeline(SimpleImputer(), RandomForestClassifier(40, min_samples_leaf=3, n_jobs=2, random_state=0))
    forest.fit(features[train & known], labels[train & known])
    return average_precision_score(labels[test & known], forest.predict_proba(features[test & known])[:, 1])


some_rows = np.random.default_rng(1).random(len(readings)) < 0.3
lucky = forest_quality(~some_rows, some_rows)
print(text("average precision on rows drawn at random: {quality:.2f}").format(quality=lucky))

# %% [markdown]
# Tuesday's windows share 13 of 14 days with Monday's. If Monday is in training and Tuesday in the test, the forest need not know wear; it recognises the pump, and remembers how it ended. In production no pump has ended yet.
#
# scikit-learn draws for you. `train_test_split` takes a list, whatever it holds, and `stratify` keeps the groups in proportion:

# %% tags=["demo"]
from sklearn.model_selection import train_test_split

fruit = np.array(["apple", "pear", "plum", "quince", "lemon", "lime", "orange", "citron"])
sour = np.array([False, False, False, False, True, True, True, True])
print(train_test_split(fruit, test_size=0.5, stratify=sour, random_state=0))  # two sour ones on each side
print(np.isin(["plum", "lime", "plum"], ["plum", "pear"]))

# %% [markdown]
# ### Task: `split_by_pump`
#
# Say for each row whether it belongs to the test side. `outcomes` has the pumps as its index, in any order; in `readings` the pumps may take turns, and its index is any.
#
# - Pumps are split, not rows: all rows of a pump are on one side.
# - `test_share` of the pumps that failed, and of those that did not, go to the test side (rounded up or down, as you like). Failures are too rare to leave that to chance.
# - The same `seed` gives the same split.

# %% task="split_by_pump"
from sklearn.model_selection import train_test_split


def split_by_pump(readings: pd.DataFrame, outcomes: pd.DataFrame, test_share: float, seed: int) -> NDArray[np.bool_]:
    """Return an array with True for each row of `readings` whose pump is on the test side."""
    ### BEGIN SOLUTION
    _, test_pumps = train_test_split(
        outcomes.index, test_size=test_share, stratify=outcomes["failed"], random_state=seed
    )
    return readings["pump"].isin(test_pumps).to_numpy()
    ### END SOLUTION


# %% check="split_by_pump"
check.split_by_pump(split_by_pump)

# %% [markdown]
# Three sides are needed, because later there will be a threshold to choose: pumps to **train** with, pumps for **tuning**, and pumps for the **test**, which nothing and nobody looks at before section 8. Your function could draw them. So that your figures are those of the text, we go on with one draw for everybody: in each group (failed or not) three pumps in ten for the test, two for tuning.

# %% tags=["demo"]
drawn = outcomes.sample(frac=1, random_state=0).sort_values("failed", kind="stable").index
place = readings["pump"].map(pd.Series(np.arange(len(drawn)) % 10, index=drawn)).to_numpy()
test, tuning, train = place < 3, (place >= 3) & (place < 5), place >= 5

# %% tags=["demo"]
honest = forest_quality(train, tuning)
figure = plots.figure(width=6, height=2.3)
axes = figure.subplots()
tests = {text("chance"): labels.mean(), text("new pumps"): honest, text("rows at random"): lucky}
bars = axes.barh(list(tests), list(tests.values()), color=[plots.ORANGE, plots.BLUE, plots.GREY], height=0.55)
axes.bar_label(bars, fmt="%.2f", padding=4)
axes.set(xlim=(0, 1), xlabel=text("average precision"), title=text("The same forest, tested in two ways"))
axes.grid(axis="y", visible=False)
plots.show(
    figure,
    alt=text(
        "The forest's average precision: 0.8 on rows drawn at random, less than 0.5 on new pumps, 0.03 by chance."
    ),
)

# %% [markdown]
# Nothing about the forest has changed, only the question. The grey bar is how models get bought that then disappoint.
#
# **Change:** put `min_samples_leaf=100` into the forest and run both tests again. The pretence disappears, and the honest bar grows. What can a leaf of a hundred rows not remember?

# %% [markdown]
# ## 7. Fill gaps, scale, classify
#
# We go on with a simple model, a logistic regression. A carefully tuned forest ranks better here; the regression is fitted in the blink of an eye, one can explain it to the mechanics, and nothing that follows depends on the model.
#
# ### Task: `build_pipeline`
#
# Return a *fitted* pipeline whose `predict_proba` gives the risk of any rows, gaps included.
#
# - `labels` holds 1, 0 and `NaN`; `train` is True for the rows of training pumps.
# - Every step learns from training rows with a known label, and from no others. Take what is known from `labels`; the notebook's `known` belongs to other rows than those of the check.
# - A feature's unit (bar or pascal) must not matter.

# %% task="build_pipeline"
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


def build_pipeline(features: pd.DataFrame, labels: pd.Series, train: NDArray[np.bool_]) -> Pipeline:
    """Fit impute → scale → classify on the training rows whose label is known."""
    ### BEGIN SOLUTION
    rows = train & labels.notna().to_numpy()
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    return pipeline.fit(features[rows], labels[rows])
    ### END SOLUTION


# %% check="build_pipeline"
check.build_pipeline(build_pipeline)

# %% tags=["demo"]
model = build_pipeline(features, labels, train)
risk = model.predict_proba(features)[:, 1]
judged = tuning & known  # the rows on which to judge for now; the test pumps wait
failing = labels.to_numpy() == 1

# %% tags=["demo"]
from sklearn.metrics import precision_recall_curve

single = build_pipeline(readings[sensors], labels, train).predict_proba(readings[sensors])[:, 1]
figure = plots.figure(width=6, height=3.6)
axes = figure.subplots()
for scores, label, color in (
    (risk, text("windows of 14 days"), plots.BLUE),
    (single, text("today's reading"), plots.GREY),
):
    precision, recall, _ = precision_recall_curve(failing[judged], scores[judged])
    quality = average_precision_score(failing[judged], scores[judged])
    axes.plot(recall, precision, color=color, label=f"{label}: {quality:.2f}")
axes.axhline(
    failing[judged].mean(), color=plots.ORANGE, linestyle="--", label=f"{text('chance')}: {failing[judged].mean():.2f}"
)
axes.set(
    xlabel=text("recall: share of the failing days that are found"),
    ylabel=text("precision: share of the alarms that are right"),
    xlim=(0, 1),
    ylim=(0, 1.02),
)
axes.set_title(text("On pumps that the model has never met"))
axes.legend(title=text("average precision"))
plots.show(
    figure,
    alt=text(
        "Precision against recall on the tuning pumps: windows of 14 days are well above today's reading, and both far above chance."
    ),
)

# %% [markdown]
# Ten times better than chance, and far from perfect: that is what honest results look like here. It cannot become perfect. When a pump reaches its limit depends on loads and shocks that have not happened yet.
#
# **Change:** write `HistGradientBoostingClassifier()` (from `sklearn.ensemble`) in place of the regression, and compare its average precision on `train & known` with the one on `judged`. What does the gap tell you? Then put back the regression, and compute the features with `days=7` and `days=28`: do they differ by more than luck? The next section says how much luck there is.

# %% [markdown]
# ## 8. How sure are we?
#
# Now the test. It has some twelve thousand rows with a known label. It also has only sixty pumps, of which twenty-seven failed. Which of these numbers says how much we know? First the result, then three more splits by your function:

# %% tags=["demo"]
scored = test & known
found = average_precision_score(failing[scored], risk[scored])
print(text("{rows} rows of the test: average precision {quality:.2f}").format(rows=scored.sum(), quality=found))
for seed in (11, 12, 13):
    chosen = split_by_pump(readings, outcomes, test_share=0.3, seed=seed)
    again = build_pipeline(features, labels, ~chosen).predict_proba(features)[:, 1]
    print(
        f"seed {seed}: average precision {average_precision_score(failing[chosen & known], again[chosen & known]):.2f}"
    )

# %% [markdown]
# The same method, the same data, and another figure each time. Whoever reports just one of them, without a range, reports a stroke of luck.
#
# The **bootstrap** asks: what if the test fleet had been another one of the same kind? It draws, with replacement, as many pumps as there are, some twice, some not at all, computes the average precision, and repeats. The middle 95 % of the results are the interval.
#
# NumPy takes rows by number, and a number that comes twice brings its row twice:

# %% tags=["demo"]
drawn_rows = np.random.default_rng(0).integers(4, size=4)
print(drawn_rows, "→", np.array(["a", "b", "c", "d"])[drawn_rows])

# %% [markdown]
# ### Task: `average_precision_interval`
#
# - In each of `rounds` rounds call `draw(n)` once, with the number of pumps: it returns `n` random whole numbers from 0 to `n - 1`, the pumps drawn. A pump that was drawn twice counts twice.
# - A round in which nothing fails has no average precision: leave it out.
# - Return both ends as `np.quantile` gives them; outside stays the share `1 - level`, one half on each side.
#
# Chance comes in through `draw`, so that anybody can repeat your result, and the check can follow what was drawn.

# %% task="average_precision_interval"
from sklearn.metrics import average_precision_score


def average_precision_interval(
    labels: NDArray[np.bool_],
    scores: NDArray[np.float64],
    pumps: NDArray[np.str_],
    draw: Callable[[int], NDArray[np.int64]],
    rounds: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the bootstrap interval of the average precision, resampling pumps; one label, score and pump a row."""
    ### BEGIN SOLUTION
    names = np.unique(pumps)
    rows = [np.flatnonzero(pumps == name) for name in names]
    values = []
    for _ in range(rounds):
        sample = np.concatenate([rows[number] for number in draw(len(names))])
        if labels[sample].any():
            values.append(average_precision_score(labels[sample], scores[sample]))
    outside = (1 - level) / 2
    low, high = np.quantile(values, [outside, 1 - outside])
    return float(low), float(high)
    ### END SOLUTION


# %% check="average_precision_interval"
check.average_precision_interval(average_precision_interval)

# %% tags=["demo"]
rng = np.random.default_rng(0)
names = readings["pump"].to_numpy(dtype=str)


def draw(count: int) -> NDArray[np.int64]:
    return rng.integers(count, size=count)


each_row = np.arange(scored.sum()).astype(str)  # pretend that every row is a pump of its own
one_pump = average_precision_interval(failing[scored], risk[scored], names[scored], draw, rounds=500)
one_row = average_precision_interval(failing[scored], risk[scored], each_row, draw, rounds=40)

figure = plots.figure(width=6.5, height=2.1)
axes = figure.subplots()
for height, (low, high), label, color in (
    (1, one_pump, text("pumps drawn"), plots.BLUE),
    (0, one_row, text("rows drawn (wrong)"), plots.GREY),
):
    axes.plot([low, high], [height, height], color=color, linewidth=8)
    axes.text(high + 0.02, height, f"{label}: {low:.2f} – {high:.2f}", va="center")
axes.axvline(found, color=plots.INK, linewidth=1, linestyle=":")
axes.set(
    xlim=(0, 0.9),
    ylim=(-0.5, 1.5),
    yticks=[],
    xlabel=text("average precision"),
    title=text("How sure are we? 95 % intervals"),
)
plots.show(
    figure,
    alt=text(
        "Two intervals around the same value: drawing rows gives a narrow one, drawing pumps one three times as wide."
    ),
)

# %% [markdown]
# The rows of a pump rise and fall together, so twelve thousand of them are worth far less than they look. The wide interval is the honest one. It still lies far above chance: the model has learned something, that much is certain. *How much*, sixty pumps cannot say better.

# %% [markdown]
# ## 9. What an alarm costs
#
# A ranking does not send a van; a threshold does. We decide every 14 days. So each failure has exactly one decision before it that could have prevented it, and the bill is simple:
#
# $$\text{cost}(t) = 450\,€ \cdot \#\{\text{score} \ge t\} \;+\; 6000\,€ \cdot \#\{\text{failing, score} < t\}$$
#
# **Predict:** is the best threshold nearer to 0.5, to 0.1 or to 0.01?
#
# ### Task: `best_threshold`
#
# Return the threshold of least cost. There is an alarm where `score >= threshold`.
#
# - Only rows where `tuning` is True may take part in the choice; the others are the test.
# - Scores are any real numbers, not necessarily probabilities.
# - To give no alarm at all (a threshold above every score, `np.inf` for instance) and to alarm always are both allowed, and sometimes best.


# %% task="best_threshold"
def best_threshold(
    labels: NDArray[np.bool_],
    scores: NDArray[np.float64],
    tuning: NDArray[np.bool_],
    inspection: float,
    failure: float,
) -> float:
    """Return the threshold of least cost on the rows for tuning; an alarm costs `inspection`, a miss `failure`."""
    ### BEGIN SOLUTION
    labels, scores = labels[tuning], scores[tuning]
    costs = {}
    for threshold in [*np.unique(scores), np.inf]:
        alarms = scores >= threshold
        costs[threshold] = inspection * alarms.sum() + failure * (labels & ~alarms).sum()
    return float(min(costs, key=costs.__getitem__))
    ### END SOLUTION


# %% check="best_threshold"
check.best_threshold(best_threshold)

# %% tags=["demo"]
INSPECTION, FAILURE = 450.0, 6000.0
decisions = known & (readings["day"] % HORIZON == 0).to_numpy()  # every 14 days, where the outcome is known
either = decisions & (tuning | test)
threshold = best_threshold(failing[either], risk[either], tuning[either], INSPECTION, FAILURE)


# %% tags=["demo"]
def cost(rows: NDArray[np.bool_], threshold: float) -> float:
    alarms = risk[rows] >= threshold
    return INSPECTION * alarms.sum() + FAILURE * (failing[rows] & ~alarms).sum()


grid = np.geomspace(0.003, 1, 200)
figure = plots.figure(width=7, height=3.6)
axes = figure.subplots()
for rows, label, color in ((tuning, text("tuning pumps"), plots.GREY), (test, text("test pumps"), plots.BLUE)):
    rows = rows & decisions
    never = cost(rows, np.inf)
    axes.plot(grid, [100 * cost(rows, value) / never for value in grid], color=color, label=label)
axes.axhline(100, color=plots.ORANGE, linestyle="--", label=text("never an alarm"))
axes.axvline(threshold, color=plots.INK, linewidth=1, linestyle=":", label=text("threshold chosen on the tuning pumps"))
axes.set(
    xscale="log",
    ylim=(0, 200),
    xlabel=text("threshold"),
    ylabel=text("cost in % of never"),
    title=text("Too many visits on the left, too many failures on the right"),
)
axes.xaxis.set_major_formatter("{x:g}")
axes.legend()
plots.show(
    figure,
    alt=text(
        "Cost against threshold: high on the left, a broad valley near 0.1, and back to the cost of no alarms on the right; both groups of pumps agree roughly."
    ),
)

# %% tags=["demo"]
final = test & decisions
alarms = risk[final] >= threshold
message = text(
    "threshold {threshold:.3f}: {visits} visits at {decisions} decisions, {prevented} of {failures} failures prevented"
)
prevented, failures = (failing[final] & alarms).sum(), failing[final].sum()
print(
    message.format(
        threshold=threshold, visits=alarms.sum(), decisions=final.sum(), prevented=prevented, failures=failures
    )
)
pd.Series(
    {
        text("never an alarm"): cost(final, np.inf),
        text("always an alarm"): cost(final, -np.inf),
        text("threshold 0.5"): cost(final, 0.5),
        text("your threshold"): cost(final, threshold),
    },
    name="€",
).to_frame()

# %% [markdown]
# Half of the cost is gone, and at 0.5 most of it would have stayed. Were the scores perfect probabilities, the best threshold would be 450 / 6000 = 0.075, whatever the data; scores seldom are. That is why the threshold is taken from data.
#
# **Change:** what if a failure costs 900 € only? And 60,000 €? Watch the valley wander. At which price is the model worth nothing?

# %% [markdown]
# Three pumps of the test that failed: the risk that the model saw on each day, and the visits that it asked for. The failure of the third came without a sign. And where does the visit on the first day of the second pump come from? (How many readings are in its window on that day?)

# %% tags=["demo"]
figure = plots.figure(height=4.6)
panels = figure.subplots(3, sharex=True, sharey=True)
for axes, pump in zip(panels, ("P142", "P165", "P171"), strict=True):
    rows = names == pump
    day = readings["day"].to_numpy()[rows]
    axes.plot(day, risk[rows], color=plots.BLUE, linewidth=1.2)
    axes.axhline(threshold, color=plots.INK, linewidth=1, linestyle=":", label=text("threshold"))
    visits = rows & decisions & (risk >= threshold)
    axes.plot(readings["day"][visits], risk[visits], "o", color=plots.GREEN, label=text("visit"))
    axes.axvline(day.max(), color=plots.RED, label=text("failure, if nobody comes"))
    axes.text(0.02, 0.8, pump, fontweight="bold", transform=axes.transAxes)
panels[0].set(ylim=(0, 1), title=text("The risk that the model sees, day by day"))
figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
panels[2].set_xlabel(text("days since installation"))
panels[1].set_ylabel(text("risk"))
plots.show(
    figure,
    alt=text(
        "The risk of three test pumps over time: for two of them low for months and rising before the failure, for the third low to the end; dots mark the visits that the model asks for."
    ),
)

# %% [markdown]
# ## 10. What does the model look at?
#
# *Permutation importance* shuffles one column of the test rows and measures how much worse the model gets. It needs no knowledge of the model's inside. But read it with care:

# %% tags=["demo"]
shuffle = np.random.default_rng(0)
table, truth = features[scored], failing[scored]
groups = {sensor: [sensor] for sensor in sensors} | {
    text("both: vibration + temperature"): ["vibration", "bearing_temperature"],
    text("both: flow + leakage"): ["flow", "seal_leakage"],
}
losses = {}
for label, members in groups.items():
    columns = [f"{sensor}_{kind}" for sensor in members for kind in ("mean", "std")]
    worse = table.copy()
    worse[columns] = table[columns].to_numpy()[shuffle.permutation(len(table))]
    losses[label] = found - average_precision_score(truth, model.predict_proba(worse)[:, 1])
pd.Series(losses, name=text("average precision lost")).sort_values(ascending=False).round(3).to_frame()

# %% [markdown]
# Vibration and temperature tell of the same bearing. Shuffle one, and the other stands in for it; shuffle both, and you see what the pair is worth: not the sum of the two. With correlated features there is no one true ranking, so this list is a hint for the conversation with the mechanic, not a finding.

# %% [markdown]
# ## 11. An excursion to real data
#
# There is a famous real set: sensor readings of NASA's space shuttle (the *Statlog Shuttle* data; in Python `river.datasets.Shuttle`), 49,097 rows with 9 measurements, 7.2 % of them anomalies. A ready-made model needs 0.6 seconds to reach an area under the ROC curve of 0.998.
#
# Wonderful, and that is the warning. On data this easy, careless work looks as good as careful work. A benchmark that everybody passes tells nothing about you. When you judge a method, ask first how hard the question was.

# %% [markdown]
# ## What you can do now
#
# You turn raw readings into features that know only the past, split by what belongs together, keep every learned number inside the pipeline, say how sure you are, and choose a threshold by its price.
#
# **Where it breaks in production.** A visited pump does not fail, so the model's own success takes away its future training data: keep a small random group unvisited, or record what the mechanic found. New pump types and new sensors shift the distributions: watch the features, not only the score. Labels arrive weeks late. And a stuck sensor looks very calm.
#
# **Read next.** The scikit-learn guide on [common pitfalls](https://scikit-learn.org/stable/common_pitfalls.html); *Survival analysis*, which uses censored rows instead of dropping them; Kaufman et al., *Leakage in Data Mining* (2012), on how experts read the future by accident.

# %% [markdown]
# ## Half a page to management
#
# Write to Ms Brandt, head of service, who has two minutes and no statistics: what the model saves, and how sure we are. Then judge yourself, or let a person judge you:
#
# | | yes | in part | no |
# | --- | --- | --- | --- |
# | The saving is there in euros, compared with doing nothing, for a stated number of pumps and time | | | |
# | The uncertainty is there, in words that she can use | | | |
# | What the model misses is said, and what false alarms cost | | | |
# | It says that the data are simulated, and which trial with real pumps comes next | | | |
# | No word that she would have to look up | | | |

# %% [markdown] manual="management_summary" points=0
# **Visits before failures: what we found**
#
# We let a program look at the daily readings of sixty pumps that it had not seen before, and decide every two weeks which of them to visit. Doing nothing, their 27 failures would have cost 162,000 €. With its advice, visits and remaining failures together would have cost about 77,000 €: less than half. It sent us out 65 times; two visits in three were not needed, and nearly a third of the failures came without a warning.
#
# Sixty pumps are few. With another sixty the saving would turn out differently; that there is one, we are sure, because the program was far better than chance in all our repetitions. How large it is, we know roughly.
#
# All of this was computed with simulated pumps. I propose a trial with thirty real ones for half a year. The mechanics note what they find at each visit; after that we decide with our own numbers.
