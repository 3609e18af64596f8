"""`kicourse grade` beside stock `nbgrader autograde`: the same class, the same machine, the same cores, in one run.

Stock nbgrader runs with the configuration that it recommends for such notebooks: demonstrations skipped, deleted check
cells put back. Rates are those of the whole command; beside them stands what each submission after the first adds.
CPU time is the whole machine's, so nothing else should be running.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
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
LIGHT_COUNT, COUNT = 20, 6
SIZES = (10, 100, 1000)
ALONE = """
import sys, time, json, importlib
from kicourse import checks
from kicourse.syllabus import course
unit = course().unit(sys.argv[1])
for module in unit.preload:
    importlib.import_module(module)
import matplotlib.figure
checks.load(unit.slug)
from tests.course.conftest import answers_of
start = time.process_time()
answers = answers_of(unit.solution("en"))
for task, check in checks.load(unit.slug).items():
    check.run(answers[task], seed=5)
print(time.process_time() - start)
"""


def measure() -> list[Row]:
    """Measure all of it; a quarter of an hour and more on two cores."""
    with tempfile.TemporaryDirectory(prefix="kicourse-bench-") as name:
        place = Path(name)
        rows = _beside_stock(
            place / "light", LIGHT_UNIT, LIGHT_COUNT, _light, "an import-heavy, light submission", "50 times"
        )
        for unit in course().finished:
            rows += _beside_stock(place / unit.slug, unit.slug, COUNT, _solution, f"solutions of {unit.slug}", "")
        return rows + _growth(place / "growth") + _first_mark(place / "first")


def _beside_stock(
    place: Path, unit: str, count: int, submission: Callable[[str], Any], what: str, aim: str
) -> list[Row]:
    """Grade the same class with both. What lies between the first mark and the last is the submissions' alone."""
    folder = _class(place, unit, [submission(unit)] * count)
    stock = Path(shutil.copytree(folder, place / "stock"))
    (stock / "nbgrader_config.py").write_text(STOCK.format(root=str(stock)))
    kicourse = _graded(folder)
    stocks, stocks_cpu = _timed([str(BIN / "nbgrader"), "autograde", unit], stock)
    further = kicourse.between / (count - 1)
    beside = f"stock nbgrader {count / stocks * 60:.1f} a minute; {stocks / kicourse.seconds:.0f} times as fast"
    rows = [
        Row(f"{what}, {count} at once, start included", f"{count / kicourse.seconds * 60:.0f} a minute", beside, aim)
    ]
    beside = f"stock nbgrader {stocks / count:.1f} s; {stocks / count / further:.0f} times as fast"
    rows.append(Row(f"{what}, each after the first", f"{further:.2f} s", beside, aim))
    if submission is _solution:
        own = _own_compute(unit)
        # With one worker, since a second one's start is no submission's.
        cpu = _graded(folder, "--workers", "1").cpu_between / (count - 1)
        beside = f"own compute {own:.1f} CPU-s; stock's overhead {stocks_cpu / count - own:.1f} CPU-s"
        measured = f"{cpu - own:.2f} CPU-s a submission"
        rows.append(Row(f"overhead of grading {unit}, after the first", measured, beside, "under 0.25 CPU-s"))
    return rows


def _growth(place: Path) -> list[Row]:
    """How time and the coordinator's memory grow with the size of a class."""
    rows = []
    for size in SIZES:
        folder = _class(place / str(size), "first_call", [_untouched("first_call")] * size)
        run = _graded(folder)
        measured = f"{run.seconds / size:.2f} s a submission"
        beside = f"{run.between / (size - 1):.2f} s after the first; coordinator {run.memory / 2**20:.0f} MiB"
        rows.append(Row(f"a class of {size:,}", measured, beside, "flat"))
    return rows


def _first_mark(place: Path) -> list[Row]:
    """How long an instructor waits for the first mark."""
    return [
        Row(f"from the start to the first mark of {unit.slug}", f"{_graded(folder).first:.1f} s")
        for unit in course().finished
        if (folder := _class(place / unit.slug, unit.slug, [_untouched(unit.slug)] * 2))
    ]


def _class(place: Path, unit: str, submissions: list[Any]) -> Path:
    folder = class_folder.new(place / "class", "en", [unit])
    for number, notebook in enumerate(submissions):
        # A name of one's own in each, so that no two are the same submission.
        notebook.cells.append(nbformat.v4.new_markdown_cell(f"Student {number}", id=f"own-{number}"))
        target = folder / "submitted" / f"student-{number:04d}" / unit
        target.mkdir(parents=True)
        nbformat.write(notebook, target / f"{unit}.ipynb")
        notebook.cells.pop()
    return folder


def _solution(unit: str) -> Any:
    return nbformat.read(course().unit(unit).solution("en"), 4)


def _untouched(unit: str) -> Any:
    return nbformat.read(course().unit(unit).exercise("en"), 4)


def _light(unit: str) -> Any:
    """Return an exercise in which only the tasks that compute little are solved."""
    solved = {cell.id: cell.source for cell in _solution(unit).cells if cell.id in LIGHT_TASKS}
    notebook = _untouched(unit)
    for cell in notebook.cells:
        cell.source = solved.get(cell.id, cell.source)
    return notebook


def _own_compute(unit: str) -> float:
    """CPU seconds of a unit's solution and its checks in one process that has imported all: the median of three."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-c", ALONE, unit]
    runs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(3)]
    return median(float(run.stdout.splitlines()[-1]) for run in runs)


@dataclass(frozen=True)
class _Run:
    """One run of `kicourse grade`: its seconds, its own most memory in bytes, and what its marks were like.

    `first` is when the first one was there; `between` and `cpu_between` are seconds, and the machine's CPU seconds,
    from the first to the last.
    """

    seconds: float
    memory: int
    first: float
    between: float
    cpu_between: float


def _graded(folder: Path, *arguments: str) -> _Run:
    """Grade a class, and watch its pages of feedback come in."""
    shutil.rmtree(folder / "feedback", ignore_errors=True)
    start, memory = time.monotonic(), 0
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
    if process.returncode or len(marks) < 2:
        raise RuntimeError(f"{folder} was not graded")
    (first, busy), (last, busy_then) = marks
    return _Run(time.monotonic() - start, memory, first - start, last - first, busy_then - busy)


def _timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command; return its seconds, and the machine's CPU seconds meanwhile."""
    before, start = _busy(), time.monotonic()
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return time.monotonic() - start, _busy() - before


def _busy() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice)
