"""What is asked of a worker and what it answers: plain data, so that both may travel to another machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kicourse.grading.report import TaskReport, read_task
from kicourse.syllabus import Limits

Status = Literal["graded", "unreadable", "error"]


@dataclass(frozen=True)
class Job:
    """One rebuilt submission to be graded.

    `notebook` is the rebuilt notebook as JSON; `seeds` holds a derived seed for each task, never the class's secret.
    With `references` the judge gives solutions away; what was `given_up` for one, here or earlier, counts zero.
    """

    student: str
    unit: str
    language: str
    notebook: bytes
    seeds: dict[str, int]
    limits: Limits
    sandboxed: bool = True
    references: bool = False
    given_up: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How one submission went.

    `notebook` is the graded notebook as JSON: the rebuilt cells, the learner's outputs made harmless, and each check
    cell's verdict written by the judge. `message` says why a submission is unreadable, or what went wrong. `given_up`
    are the job's tasks of that kind, and those that were given up on the way.
    """

    student: str
    unit: str
    status: Status
    tasks: tuple[TaskReport, ...]
    notebook: bytes
    seconds: float = 0.0
    message: str = ""
    given_up: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """The points earned."""
        return sum(task.points for task in self.tasks)

    @property
    def max_score(self) -> float:
        """The points that can be earned."""
        return sum(task.max_points for task in self.tasks)


def read_outcome(content: Mapping[str, Any]) -> Outcome:
    """Return an outcome from its fields as JSON has them, but for the notebook's bytes."""
    tasks, given_up = tuple(read_task(task) for task in content["tasks"]), tuple(content["given_up"])
    return Outcome(**{**content, "tasks": tasks, "given_up": given_up})
