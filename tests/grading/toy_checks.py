"""The checks of a unit of two small tasks, at home in no unit of the course."""

from kicourse.checks import Check, Handle, Trial

double = Check("maintenance", "double", title="Double", hints=("Add.", "Add it.", "x + x"), seconds=5)
shout = Check("maintenance", "shout", title="Shout", hints=("Case.", "Upper.", "x.upper()"), seconds=5)


@double.criterion("doubles a number", points=5)
def of_numbers(trial: Trial, answer: Handle) -> None:
    number = int(trial.rng.integers(1, 100))
    trial.require(answer(number) == 2 * number, "{number} doubled is something else", number=number)


@double.criterion("doubles a list", points=2.5)
def of_lists(trial: Trial, answer: Handle) -> None:
    trial.require(answer([1, 2]) == [2, 4], "not each item is doubled")


@shout.criterion("shouts", points=2.5)
def shouts(trial: Trial, answer: Handle) -> None:
    trial.require(answer("ah") == "AH", "this is no shout")
