"""The one place that writes: gradebook, graded notebooks, feedback."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from kicourse.grading.feedback import FeedbackWriter
from kicourse.grading.gradebook import GradebookWriter
from kicourse.grading.job import Outcome
from kicourse.grading.open_class import OpenClass, moment_of
from kicourse.grading.placing import place_feedback, place_graded

LEFT_OUT = "# With what stood here, this page could not be made. It is in the submission."


class Writer:
    """Writes outcomes into a class folder, one after the other. Use it as a context manager.

    Entering it raises UserError for a gradebook that cannot be used.
    """

    def __init__(self, opened: OpenClass) -> None:
        self.opened = opened
        self._prepared: set[str] = set()

    def __enter__(self) -> "Writer":
        """Open the gradebook."""
        self._stack = ExitStack()
        url, config = self.opened.db_url, self.opened.config
        self._gradebook = self._stack.enter_context(GradebookWriter(url, self.opened.course_id, config))
        self._feedback = self._stack.enter_context(FeedbackWriter(url, config))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the gradebook."""
        self._stack.close()

    def require_gradebook(self) -> None:
        """Do nothing: a gradebook that cannot be used has been noticed on entering."""

    def prepare(self, unit: str) -> None:
        """Do what the unit's first page would wait for, unless it is done."""
        if unit not in self._prepared:
            self._prepared.add(unit)
            self._feedback.prepare(self.opened.releases[unit].node)

    def write(self, outcome: Outcome, timestamp: str | None, page_only: bool = False, whole: bool = True) -> str:
        """Write marks, graded notebook and feedback of one submission; return what is `written` then.

        A second time gives the same. `page_only` leaves the marks and the notebook as they are. A page that is not
        `whole` shows nothing that the student has written.
        """
        root, student, unit = self.opened.root, outcome.student, outcome.unit
        if not page_only:
            self._gradebook.write(outcome, moment_of(timestamp))
            place_graded(root, student, unit, outcome.notebook, timestamp)
        shown = outcome.notebook if whole else _without_the_students(outcome.notebook, self.opened.releases[unit].node)
        page = self._feedback.page(student, unit, shown)
        place_feedback(root, student, unit, page, timestamp)
        return self.written(student, unit)

    def written(self, student: str, unit: str) -> str:
        """Return what is written of a submission, as a text to compare; empty where gradebook or files lack it."""
        places = (("autograded", "ipynb"), ("feedback", "html"))
        if all((self.opened.root / room / student / unit / f"{unit}.{end}").is_file() for room, end in places):
            return json.dumps(self._gradebook.marks(student, unit))
        return ""

    def has_marks(self, outcome: Outcome) -> bool:
        """Whether the gradebook has an outcome's marks, and the graded notebook is there."""
        student, unit = outcome.student, outcome.unit
        marks = self._gradebook.marks(student, unit)
        same = all(marks.get(f"{task.task}-check") == task.points for task in outcome.tasks)
        return same and (self.opened.root / "autograded" / student / unit / f"{unit}.ipynb").is_file()

    def marked_by_hand(self, units: Sequence[str], students: Sequence[str]) -> int:
        """Return how many submissions have a mark that a person gave."""
        return self._gradebook.marked_by_hand(units, students)


def _without_the_students(notebook: bytes, release: Any) -> bytes:
    """Return a graded notebook with nothing in it but the release's own cells, and the judge's verdicts."""
    content = json.loads(notebook)
    released = {cell.id: cell.source for cell in release.cells}
    for cell in content["cells"]:
        if released.get(cell["id"]) != "".join(cell["source"]):
            cell["source"] = LEFT_OUT
        if cell["cell_type"] == "code":  # only the judge's own results are results
            cell["outputs"] = [output for output in cell["outputs"] if output["output_type"] == "execute_result"]
    return json.dumps(content).encode()
