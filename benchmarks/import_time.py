"""How long an import takes, each in a fresh interpreter, above what an empty interpreter needs."""

import statistics
import subprocess
import sys
import time

from benchmarks.row import Row
from kicourse.syllabus import course

REPETITIONS = 7


def seconds(code: str) -> float:
    """Return the median wall time of a fresh interpreter that runs `code`."""

    def once() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    once()
    return statistics.median(once() for _ in range(REPETITIONS))


def loads_torch(code: str) -> bool:
    """Whether running `code` really loads torch (a lazy module of that name is not it)."""
    check = f"{code}\nimport sys; sys.exit('torch._C' in sys.modules)"
    return subprocess.run([sys.executable, "-c", check], check=False).returncode != 0


def measure() -> list[Row]:
    """Measure the package and every unit's checks module."""
    empty = seconds("pass")
    modules = ["kicourse", *(f"kicourse.checks.{unit.slug}" for unit in course().finished)]
    rows = []
    for module in modules:
        code = f"import {module}"
        torch = "loads torch" if loads_torch(code) else "no torch"
        rows.append(Row(f"import {module}", f"{seconds(code) - empty:.3f} s", torch, "under 0.15 s, no torch"))
    return rows
