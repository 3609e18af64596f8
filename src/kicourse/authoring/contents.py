"""The README of a built folder: the units in order."""

from collections.abc import Callable

from kicourse import syllabus
from kicourse.authoring import catalogues
from kicourse.language import _
from kicourse.syllabus import Course, Part, Unit

OPENING = _(
    "The units that are ready, in order. Read them here, or work in them: `kicourse lab` opens them in JupyterLab, "
    "with checks that answer at once. These files are built from `course/`; changes belong there."
)
UNIT, MINUTES, NEEDS = _("Unit"), _("Minutes"), _("Builds on")


def readme(language: str) -> str:
    """Return the README of exercises/<language>/."""
    title = catalogues.translator("syllabus", language)
    word = catalogues.translator("kicourse", language)
    course = syllabus.course()
    pieces = [f"# {title(course.title)}", word(OPENING)]
    for part in course.parts:
        if any(unit.finished for unit in part.units):
            pieces += [f"## {title(part.title)}", _table(part, course, title, word)]
    return "\n\n".join(pieces) + "\n"


def _table(part: Part, course: Course, title: Callable[[str], str], word: Callable[[str], str]) -> str:
    rows = [f"| {word(UNIT)} | {word(MINUTES)} | {word(NEEDS)} |", "| --- | ---: | --- |"]
    units = {unit.slug: unit for unit in course.units}
    for unit in part.units:
        if unit.finished:
            needs = ", ".join(_link(units[slug], title) for slug in unit.prerequisites) or "–"
            rows.append(f"| {_link(unit, title)} | {unit.minutes} | {needs} |")
    return "\n".join(rows)


def _link(unit: Unit, title: Callable[[str], str]) -> str:
    return f"[{title(unit.title)}]({unit.slug}.ipynb)" if unit.finished else title(unit.title)
