"""A verdict over many seeds."""

from dataclasses import dataclass
from typing import Any

from kicourse.checks.verdict import Verdict
from kicourse.language import _, translate


@dataclass(frozen=True)
class Many:
    """The verdicts of one answer on many seeds; it shows how many passed and the worst one."""

    verdicts: list[Verdict]

    @property
    def passed(self) -> int:
        """On how many seeds the answer earned full marks."""
        return sum(verdict.status == "passed" for verdict in self.verdicts)

    @property
    def worst(self) -> Verdict:
        """The first of the verdicts with the fewest points."""
        return min(self.verdicts, key=lambda verdict: verdict.points)

    def headline(self) -> str:
        """Say how many passed."""
        text = translate("kicourse", _("{passed} of {count} trials passed."))
        return text.format(passed=self.passed, count=len(self.verdicts))

    def __repr__(self) -> str:
        return self.headline() if self.passed == len(self.verdicts) else f"{self.headline()}\n{self.worst!r}"

    def _repr_html_(self) -> str:
        from kicourse.checks.render import as_html, frame

        headline = frame(self.headline(), "passed" if self.passed == len(self.verdicts) else "failed")
        return headline if self.passed == len(self.verdicts) else headline + as_html(self.worst)

    def _repr_mimebundle_(self, **_kwargs: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}
