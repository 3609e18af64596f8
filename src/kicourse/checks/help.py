"""What a learner who is stuck gets: hints, and at last the reference solution."""

import json
import os
from dataclasses import dataclass

from kicourse.errors import UserError
from kicourse.language import _, translate
from kicourse.syllabus import course


@dataclass(frozen=True)
class Hint:
    """One of three hints; `again` where somebody asks for more than there are."""

    level: int
    text: str
    again: bool = False

    def headline(self) -> str:
        """Say which hint this is."""
        message = _("That was the last hint; here it is again.") if self.again else _("Hint {level} of 3")
        return translate("kicourse", message).format(level=self.level)

    def __repr__(self) -> str:
        return f"{self.headline()}: {self.text}"

    def _repr_html_(self) -> str:
        from kicourse.checks.render import frame, inline

        return frame(f"<b>{self.headline()}</b> {inline(self.text)}", "hint", is_html=True)


@dataclass(frozen=True)
class Reference:
    """A task's reference solution."""

    title: str
    source: str

    def into_notebook(self) -> "Reference":
        """Run the solution in the notebook that asked for it, so that the next task can be tried."""
        from IPython import get_ipython

        if (shell := get_ipython()) is not None:
            exec(compile(self.source, "<reference solution>", "exec"), shell.user_ns)
        return self

    def __repr__(self) -> str:
        return self.source

    def _repr_html_(self) -> str:
        from kicourse.checks.render import code, frame

        note = translate("kicourse", _("The reference solution is now defined in your notebook. The task counts zero."))
        return frame(note, "hint") + code(self.source)


def reference_source(unit: str, task: str, language: str) -> str:
    """Return the code of a task's reference solution.

    Raises UserError where references are off: while nbgrader runs a notebook, and where KICOURSE_REFERENCE says "off".
    KICOURSE_REFERENCE=on turns them on in both.
    """
    default = "off" if os.environ.get("NBGRADER_EXECUTION") else "on"
    if os.environ.get("KICOURSE_REFERENCE", default) == "off":
        raise UserError("reference() is off in this class: ask your instructor, or try hint() first.")
    notebook = json.loads(course().unit(unit).solution(language).read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == task:
            return "".join(cell["source"])
    raise UserError(f"There is no reference solution for {unit}.{task}; reinstall kicourse.")
