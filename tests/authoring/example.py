"""A whole course in four strings: one finished unit, one that is announced."""

SYLLABUS = """
[course]
title = "A small course"
languages = ["en", "de"]
core_path = ["averages"]

[roles]
engineer = "Engineer"

[[parts]]
slug = "numbers"
title = "Numbers"

  [[parts.units]]
  slug = "averages"
  title = "Averages of pumps"
  minutes = 20
  finished = true

  [[parts.units]]
  slug = "later"
  title = "Something later"
  minutes = 30
  prerequisites = ["averages"]
"""

UNIT = '''# %% [markdown]
# # Averages
# A pump reports its pressure every second.
#
# ```python
# pressure = [1.0, 2.0]
#
# print(pressure)
# ```
#
# | pump | pressure |
# | ---- | -------- |
# | one  | 3 bar    |

# %%
import kicourse
from kicourse.checks import averages as check

text = kicourse.start("averages")

# %%
import math

# %% tags=["demo"]
pressure = [1.0, 2.0]
print(text("bar"), sum(pressure))

# %% task="mean"
def mean(values: list[float]) -> float:
    """Return the mean, and NaN of nothing."""
    ### BEGIN SOLUTION
    if not values:
        return math.nan
    total = 0.0
    for value in values:
        total += value
    return total / len(values)
    ### END SOLUTION

# %% check="mean"
check.mean(mean)

# %% [markdown]
# Now the largest ones.

# %% task="largest"
def largest(values: list[float], count: int) -> list[float]:
    ### BEGIN SOLUTION
    return sorted(values, reverse=True)[:count]
    ### END SOLUTION

# %% check="largest"
check.largest(largest)

# %% [markdown] manual="memo"
# The pumps are fine.

# %%
print("done")

# %%
print("done")
'''

CHECKS = """
import math

from kicourse.checks import Check, Handle, Trial, _

mean = Check("averages", "mean", title=_("Mean"), hints=(_("Sum."), _("Divide."), _("Both.")), seconds=1)


@mean.criterion(_("the mean of many"), points=5)
def many(trial: Trial, answer: Handle) -> None:
    values = [float(value) for value in trial.rng.normal(size=5)]
    got = answer(values)
    trial.require(abs(got - sum(values) / 5) < 1e-9, _("{count} numbers have another mean"), count=5)


@mean.criterion(_("nothing has no mean"), points=1)
def none(trial: Trial, answer: Handle) -> None:
    trial.require(math.isnan(answer.allowing_nonfinite()([])), _("not NaN"))


@mean.misconception(_("the median"))
def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


largest = Check("averages", "largest", title=_("Largest"), hints=(_("Sort."), _("Cut."), _("Both.")), seconds=1)


@largest.criterion(_("as many as asked for"), points=4)
def length(trial: Trial, answer: Handle) -> None:
    trial.require(len(answer([3.0, 1.0, 2.0], 2)) == 2, _("not two"))


@largest.misconception(_("the smallest"))
def smallest(values: list[float], count: int) -> list[float]:
    return sorted(values)[:count]
"""

CODE = "```python\npressure = [1.0, 2.0]\n\nprint(pressure)\n```"
TABLE = "| Pumpe | Druck |\n| --- | --- |\n| eins | 3 bar |"
GERMAN = {
    "# Averages": "# Mittelwerte",
    "A pump reports its pressure every second.": "Eine Pumpe meldet jede Sekunde ihren Druck.",
    CODE: CODE,
    "| pump | pressure |\n| ---- | -------- |\n| one  | 3 bar    |": TABLE,
    "bar": "Bar",
    "Now the largest ones.": "Nun die größten.",
    "The pumps are fine.": "Den Pumpen geht es gut.",
    "Mean": "Mittelwert",
    "Sum.": "Summiere.",
    "Divide.": "Teile.",
    "Both.": "Beides.",
    "the mean of many": "der Mittelwert von vielen",
    "{count} numbers have another mean": "{count} Zahlen haben einen anderen Mittelwert",
    "nothing has no mean": "nichts hat keinen Mittelwert",
    "not NaN": "nicht NaN",
    "the median": "der Median",
    "Largest": "Größte",
    "Sort.": "Sortiere.",
    "Cut.": "Schneide ab.",
    "as many as asked for": "so viele wie verlangt",
    "not two": "nicht zwei",
    "the smallest": "die kleinsten",
}
