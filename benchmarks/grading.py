"""`kicourse grade` beside stock `nbgrader autograde`, and how its time grows with a class: one machine, one run.

Stock nbgrader runs with the configuration that it recommends for such notebooks: demonstrations skipped, deleted check
cells put back. It takes one submission after the other: its rate is measured once, and holds for a larger class too.
Rates are those of the whole command; beside them stands what each submission after the first adds.
CPU time is the whole machine's, so nothing else should be running.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil

from benchmarks.row import Row
from kicourse.grading import class_folder
from kicourse.syllabus import course

BIN = Path(sys.executable).parent
STOCK = """
c = get_config()
c.CourseDirectory.root = {root!r}
c.CourseDirectory.course_id = "stock"
c.OverwriteCells.add_missing_cells = True
c.Execute.skip_cells_with_tag = "demo"
c.Execute.timeout = 600
"""
LIGHT_UNIT, LIGHT_TASKS = "mini_gpt", ("causal_attention", "transformer_block", "bits_per_character")
LIGHT_COUNT, LARGER_COUNT = 20, 100
SIZES = (10, 100, 1000)


def measure() -> Iterator[Row]:
    """Measure a light unit beside stock nbgrader, classes of growing size, and the wait for a first mark."""
    with tempfile.TemporaryDirectory(prefix="kicourse-bench-") as name:
        place = Path(name)
        what, light = "an import-heavy, light submission", _light(LIGHT_UNIT)
        stock = yield from beside_stock(place / "light", LIGHT_UNIT, [light] * LIGHT_COUNT, what, "50 times")
        larger = make_class(place / "larger", LIGHT_UNIT, [light] * LARGER_COUNT)
        yield from _times_as_fast(graded(larger), stock, LARGER_COUNT, what, "50 times")
        yield from _growth(place / "growth")
        yield from _first_mark(place / "first")


def beside_stock(
    place: Path, unit: str, submissions: list[Any], what: str, aim: str = ""
) -> Generator[Row, None, float]:
    """Grade the same class with both; return how many seconds a submission takes stock nbgrader."""
    count = len(submissions)
    folder = make_class(place, unit, submissions)
    stock = Path(shutil.copytree(folder, place / "stock"))
    (stock / "nbgrader_config.py").write_text(STOCK.format(root=str(stock)))
    run = graded(folder)
    each = _seconds([str(BIN / "nbgrader"), "autograde", unit], stock) / count
    yield from _times_as_fast(run, each, count, what, aim)
    return each


def _times_as_fast(run: "Run", stock: float, count: int, what: str, aim: str) -> Iterator[Row]:
    """Say how a run compares with stock nbgrader's seconds for each submission.

    What lies between the first mark and the last is the submissions' alone.
    """
    measured = f"{count / run.seconds * 60:.0f} a minute"
    beside = f"stock nbgrader {60 / stock:.1f} a minute; {count * stock / run.seconds:.0f} times as fast"
    yield Row(f"{what}, {count} at once, start included", measured, beside, aim)
    further = run.between / (count - 1)
    beside = f"stock nbgrader {stock:.1f} s; {stock / further:.0f} times as fast"
    yield Row(f"{what}, each after the first of {count}", f"{further:.2f} s", beside, aim)


def _growth(place: Path) -> Iterator[Row]:
    """How time and the coordinator's memory grow with the size of a class."""
    for size in SIZES:
        folder = make_class(place / str(size), "first_call", [_untouched("first_call")] * size)
        run = graded(folder)
        measured = f"{run.seconds / size:.2f} s a submission"
        beside = f"{run.between / (size - 1):.2f} s after the first; coordinator {run.memory / 2**20:.0f} MiB"
        yield Row(f"a class of {size:,}", measured, beside, "flat")


def _first_mark(place: Path) -> Iterator[Row]:
    """How long an instructor waits for the first mark."""
    for unit in course().finished:
        folder = make_class(place / unit.slug, unit.slug, [_untouched(unit.slug)] * 2)
        run = graded(folder)
        yield Row(
            f"from the start to the first mark of {unit.slug}", f"{run.first:.1f} s", f"{run.cpu_first:.0f} CPU-s"
        )


def make_class(place: Path, unit: str, submissions: list[Any]) -> Path:
    folder = class_folder.new(place / "class", "en", [unit])
    for number, notebook in enumerate(submissions):
        # A name of one's own in each, so that no two are the same submission.
        notebook.cells.append(nbformat.v4.new_markdown_cell(f"Student {number}", id=f"own-{number}"))
        target = folder / "submitted" / f"student-{number:04d}" / unit
        target.mkdir(parents=True)
        nbformat.write(notebook, target / f"{unit}.ipynb")
        notebook.cells.pop()
    return folder


def solution(unit: str) -> Any:
    return nbformat.read(course().unit(unit).solution("en"), 4)


def _untouched(unit: str) -> Any:
    return nbformat.read(course().unit(unit).exercise("en"), 4)


def _light(unit: str) -> Any:
    """Return an exercise in which only the tasks that compute little are solved."""
    solved = {cell.id: cell.source for cell in solution(unit).cells if cell.id in LIGHT_TASKS}
    notebook = _untouched(unit)
    for cell in notebook.cells:
        cell.source = solved.get(cell.id, cell.source)
    return notebook


@dataclass(frozen=True)
class Run:
    """One run of `kicourse grade`: its seconds, its own most memory in bytes, and what its marks were like.

    `first` and `cpu_first` are seconds, and the machine's CPU seconds, until the first one was there; `between` and
    `cpu_between` those from the first to the last.
    """

    seconds: float
    memory: int
    first: float
    cpu_first: float
    between: float
    cpu_between: float


def graded(folder: Path, *arguments: str) -> Run:
    """Grade a class, and watch its pages of feedback come in."""
    shutil.rmtree(folder / "feedback", ignore_errors=True)
    start, busy, memory = time.monotonic(), _busy(), 0
    process = psutil.Popen(
        [str(BIN / "kicourse"), "grade", "--force", *arguments, str(folder)], stdout=subprocess.DEVNULL
    )
    marks: list[tuple[float, float]] = []  # when there were more pages than before, and how busy the machine was
    pages = 0
    while process.poll() is None:
        now = sum(1 for _ in folder.glob("feedback/*"))
        if now > pages:
            pages, marks = now, [*marks[:1], (time.monotonic(), _busy())]
        with suppress(psutil.NoSuchProcess):
            memory = max(memory, process.memory_info().rss)
        time.sleep(0.1)  # more often, and looking would be a part of what is measured
    if process.returncode or not marks:
        raise RuntimeError(f"{folder} was not graded")
    (first, before), (last, after) = marks[0], marks[-1]
    return Run(time.monotonic() - start, memory, first - start, before - busy, last - first, after - before)


def _seconds(command: list[str], folder: Path) -> float:
    start = time.monotonic()
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return time.monotonic() - start


def _busy() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice)
