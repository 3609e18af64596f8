"""What a check returns."""

import os
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["passed", "failed", "not_reached"]
Status = Literal["passed", "partial", "failed", "not_started", "error"]

MIMETYPE = "application/vnd.kicourse.verdict+json"


@dataclass(frozen=True)
class Result:
    """How one criterion went. Every text is in the learner's language."""

    name: str
    title: str
    status: Outcome
    points: float
    max_points: float
    message: str = ""
    tried: str = ""
    got: str = ""
    expected: str = ""
    why: str = ""
    where: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a check says about an answer: points earned, and every criterion with its outcome and message.

    `diagnosis` names the known mistake that the answer behaves like; `notes` inform and cost nothing. `seconds` is how
    long the whole verdict took, `answer_seconds` how long the check waited for the answer's own code.
    """

    unit: str
    task: str
    title: str
    points: float
    max_points: float
    status: Status
    criteria: tuple[Result, ...] = ()
    diagnosis: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)
    answer_seconds: float = field(default=0.0, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as plain data, ready for JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        from kicourse.checks.render import as_text

        return as_text(self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Show HTML in JupyterLab and text elsewhere; nbgrader reads a bare number as the points earned."""
        from kicourse.checks.render import as_html, as_text

        plain = f"{self.points:g}" if os.environ.get("NBGRADER_EXECUTION") else as_text(self)
        return {"text/plain": plain, "text/html": as_html(self), MIMETYPE: self.as_dict()}


def status_of(points: float, max_points: float, started: bool) -> Status:
    """Name what a number of points means."""
    if not started and points == 0:
        return "not_started"
    if points >= max_points:
        return "passed"
    return "partial" if points > 0 else "failed"
