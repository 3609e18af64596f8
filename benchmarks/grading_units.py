"""What grading costs in each finished unit: six solutions beside stock nbgrader, and CPU time a submission.

A unit's own compute, that of its solution and checks, is measured in one process that has imported all. CPU time is the
whole machine's, so nothing else should be running.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.grading import beside_stock, graded, make_class, solution
from benchmarks.row import Row
from kicourse.syllabus import course

COUNT = 6
ALONE = """
import sys, time, importlib
from kicourse import checks
from kicourse.syllabus import course
unit = course().unit(sys.argv[1])
for module in (*unit.preload, *unit.player_preload):
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


def measure() -> Iterator[Row]:
    """Measure unit after unit, each in two minutes or so."""
    with tempfile.TemporaryDirectory(prefix="kicourse-bench-") as name:
        for unit in (unit.slug for unit in course().finished):
            solutions = [solution(unit)] * COUNT
            yield from beside_stock(Path(name) / unit / "both", unit, solutions, f"solutions of {unit}")
            yield _cost(make_class(Path(name) / unit / "one-worker", unit, solutions), unit)


def _cost(folder: Path, unit: str) -> Row:
    """Measure what a submission after the first costs one worker: a second one's start is no submission's."""
    own = _own_compute(unit)
    cost = graded(folder, "--workers", "1").cpu_between / (COUNT - 1)
    beside = f"own compute {own:.1f} CPU-s, overhead {cost - own:.2f} CPU-s"
    return Row(f"cost of grading {unit}, after the first", f"{cost:.1f} CPU-s", beside, "overhead under 0.25 CPU-s")


def _own_compute(unit: str) -> float:
    """CPU seconds of a unit's solution and its checks: the median of three."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-c", ALONE, unit]
    runs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(3)]
    return median(float(run.stdout.splitlines()[-1]) for run in runs)
