"""The notebook that is graded: the release, with a submission's source in it and nothing else of the submission."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import count, groupby
from typing import Any, NamedTuple

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from kicourse.grading import opening
from kicourse.grading.submitted import CLEAR_OUTPUTS, UnreadableSubmissionError
from kicourse.language import _
from kicourse.syllabus import course

MOST_EXTRAS = 2_000
LONGEST_SOURCE = 1_000_000  # characters
# Twenty megabytes of `[],` would take half a gigabyte and many seconds to parse; a notebook has some thousand brackets.
MOST_BRACKETS = 500_000

_KINDS = ("code", "markdown", "raw")
_BY_SOURCE = 2
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def rebuild(release: NotebookNode, data: bytes) -> NotebookNode:
    """Return the release notebook (of format 4.5) with what a learner wrote in it; `data` is the submitted file.

    From the submission come the source of the solution cells and the learner's own extra cells, each after the
    release cell that it follows there, and MOST_EXTRAS of them at most. A solution cell is found by its grade_id, or by
    its id where the grade_id was lost; the halves of one that was split are joined; otherwise the first of several
    counts, and what a learner has written in the others is run as an own cell is; a missing one keeps its stub. A copy
    of a demonstration, which itself is not run, is an own cell too. Everything else is the release's. That includes
    code cells that a learner may edit, demonstrations and helpers: the release wins, so that every submission is graded
    on the same ground; what a learner changed there belongs into an own cell.

    Whatever can be understood of a submission is used. Raises UnreadableSubmissionError for a file that is no notebook
    at all, holds more than MOST_BRACKETS, or has a cell to be taken whose source is longer than LONGEST_SOURCE.
    """
    return deepcopy(_rebuilt(release, data))


def rebuilt_json(release: NotebookNode, data: bytes) -> bytes:
    """Return the notebook that `rebuild` makes, as JSON for a job."""
    # nbformat's own writer checks the notebook, which holds to the format, and takes ten times as long.
    return json.dumps(_rebuilt(release, data), ensure_ascii=False).encode()


def _rebuilt(release: NotebookNode, data: bytes) -> NotebookNode:
    """Return the rebuilt notebook, which shares with the release all that is the same."""
    cells = _joined(release, _submitted_cells(release, data))
    claims = _claims(release, cells)
    counted = _first_of_each(claims)
    released = {cell.source for cell in release.cells}
    rebuilt = list(release.cells)
    extras: dict[int, list[_Cell]] = defaultdict(list)
    preceding = -1
    for position, (cell, claim) in enumerate(zip(cells, claims, strict=True)):
        if claim and position in counted:
            preceding = claim.place
            rebuilt[preceding] = _answered(release.cells[preceding], cell)
        elif cell.kind not in _KINDS:
            continue
        elif claim is None or (claim.weakness == _BY_SOURCE and is_demo(release.cells[claim.place])):
            extras[preceding].append(cell)
        elif _is_answer(release.cells[claim.place]) and cell.source not in released:
            extras[max(preceding, claim.place)].append(cell)
    return NotebookNode(release, cells=list(_woven(rebuilt, extras)))


def harmless_markdown(text: str) -> str:
    """Return a learner's markdown as a block of code, for pages that have the instructor's rights.

    The fence is longer than any run of backticks inside, so that nothing inside can close it.
    """
    if not text:
        return ""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


@dataclass(frozen=True)
class _Cell:
    """What can be understood of a submitted cell."""

    kind: str | None
    source: str
    grade_id: str | None
    id: str | None


class _Claim(NamedTuple):
    """A submitted cell is this release cell: by its grade_id (0), its id (1) or, having lost both, its source (2)."""

    weakness: int
    place: int


def _submitted_cells(release: NotebookNode, data: bytes) -> list[_Cell]:
    if data.count(b"[") + data.count(b"{") > MOST_BRACKETS:
        raise UnreadableSubmissionError(_("It holds too much data."), CLEAR_OUTPUTS)
    unit = release.metadata.get("kicourse", {}).get("unit", "NOTEBOOK")
    try:
        held = opening.content(data, f"{unit}.ipynb")
    except opening.UnreadableNotebookError as error:
        raise UnreadableSubmissionError(*error.sentences, **error.values) from error
    if not isinstance(held.get("cells"), list):
        raise UnreadableSubmissionError(_("It is a damaged notebook: it has no list of cells."), opening.ANEW)
    cells = [cell for raw in held["cells"] if (cell := _understood(raw))]
    other = _dictionary(_dictionary(held.get("metadata")).get("kicourse")).get("unit")
    if other != unit and _is_unit(other) and not _answers(release) & {cell.grade_id for cell in cells}:
        problem = _("It is the notebook of the unit '{other}', not of '{unit}'. Hand in that one.")
        raise UnreadableSubmissionError(problem, other=other, unit=unit)
    return cells


def _is_unit(name: object) -> bool:
    return any(unit.slug == name for unit in course().units)


def _answers(release: NotebookNode) -> set[str]:
    about = (cell.metadata.get("nbgrader", {}) for cell in release.cells)
    return {one["grade_id"] for one in about if one.get("solution")}


def _understood(raw: object) -> _Cell | None:
    """Read a cell of which any part may be of any type; None for one that cannot be used."""
    cell = _dictionary(raw)
    source = _source(cell.get("source"))
    if source is None:
        return None
    graded = _dictionary(_dictionary(cell.get("metadata")).get("nbgrader"))
    return _Cell(_string(cell.get("cell_type")), source, _string(graded.get("grade_id")), _string(cell.get("id")))


def _source(raw: object) -> str | None:
    """A source as clean text: nothing that a file, a parser or a terminal stumbles over."""
    lines = raw if isinstance(raw, list) else [raw]
    texts = [line for line in lines if isinstance(line, str)]
    if len(texts) < len(lines):
        return None
    text = "".join(texts).replace("\r\n", "\n").replace("\0", "")
    return _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _joined(release: NotebookNode, cells: Iterable[_Cell]) -> list[_Cell]:
    """Put a solution cell together again that JupyterLab has split: both halves keep its grade_id."""
    answers = _answers(release)
    whole: list[_Cell] = []
    for (grade_id, _kind), alike in groupby(cells, key=lambda cell: (cell.grade_id, cell.kind)):
        group = list(alike)
        if grade_id in answers:
            sources = [source for source, _again in groupby(cell.source for cell in group)]
            group = [replace(group[0], source="\n".join(sources))]
        whole += group
    return whole


def _dictionary(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _claims(release: NotebookNode, cells: Iterable[_Cell]) -> list[_Claim | None]:
    """For each submitted cell, which release cell it is; None for a learner's own."""
    by_grade_id: dict[str | None, int] = {}
    by_id: dict[str | None, int] = {}
    by_source: dict[str | None, int] = {}
    for place, cell in enumerate(release.cells):
        if grade_id := cell.metadata.get("nbgrader", {}).get("grade_id"):
            by_grade_id.setdefault(grade_id, place)
        by_id.setdefault(cell.id, place)
        by_source.setdefault(cell.source, place)

    def claim(cell: _Cell) -> _Claim | None:
        ways = ((by_grade_id, cell.grade_id), (by_id, cell.id), (by_source, cell.source))
        return next((_Claim(way, places[name]) for way, (places, name) in enumerate(ways) if name in places), None)

    return [claim(cell) for cell in cells]


def _first_of_each(claims: Sequence[_Claim | None]) -> set[int]:
    """The positions of the claims that count: of those on one release cell the least weak, then the first.

    A copy does not draw the extra cells behind it to the place of its original.
    """
    first: dict[int, int] = {}
    for claim, position in sorted((claim, position) for position, claim in enumerate(claims) if claim):
        first.setdefault(claim.place, position)
    return set(first.values())


def _answered(target: NotebookNode, cell: _Cell) -> NotebookNode:
    """Return a cell of the release, with a learner's source in it if it is one for solutions."""
    if not _is_answer(target) or cell.source == target.source:
        return target  # an unchanged one must stay so to the byte: nbgrader compares checksums
    return NotebookNode(target, source=_kept_source(target.cell_type, cell))


def is_demo(cell: Mapping[str, Any]) -> bool:
    """Whether a cell is a demonstration, which grading leaves out."""
    return "demo" in cell["metadata"].get("tags", ())


def _is_answer(cell: NotebookNode) -> bool:
    graded = cell.metadata.get("nbgrader", {})
    return bool(graded.get("solution") and not graded.get("locked"))


def _kept_source(kind: str | None, cell: _Cell) -> str:
    if len(cell.source) > LONGEST_SOURCE:
        raise UnreadableSubmissionError(
            _("A cell of it has more than {millions} million characters."),
            _("Read data from a file instead, or take it out."),
            millions=LONGEST_SOURCE // 10**6,
        )
    return cell.source if kind == "code" else harmless_markdown(cell.source)


def _woven(cells: Sequence[NotebookNode], extras: dict[int, list[_Cell]]) -> Iterator[NotebookNode]:
    """The release's cells, each followed by the extra cells that belong behind it."""
    taken = {cell.id for cell in cells}
    fresh = (name for number in count(1) if (name := f"extra-{number}") not in taken)
    left = MOST_EXTRAS
    for place in range(-1, len(cells)):
        if place >= 0:
            yield cells[place]
        taken_here = extras.get(place, [])[:left]
        left -= len(taken_here)
        for extra in taken_here:
            make = new_code_cell if extra.kind == "code" else new_markdown_cell
            yield make(_kept_source(extra.kind, extra), id=next(fresh))
