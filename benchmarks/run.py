"""Run every benchmark and write the table to RESULTS.md: `make bench`, or `python benchmarks/run.py NAME...`."""

import importlib
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).resolve().parent
NAMES = ("import_time", "verdict_latency", "gpt_speed", "mini_gpt_quality", "grading")
PACKAGES = ("kicourse", "torch", "transformers", "xllamacpp", "numpy", "scikit-learn")
COLUMNS = ("what", "measured", "beside it", "aim")


def main(names: list[str]) -> None:
    """Measure, print a table and write it; with names, only those benchmarks, and nothing is written."""
    sys.path.insert(0, str(FOLDER.parent))
    console = Console()
    rows = []
    for name in names or NAMES:
        with console.status(f"measuring {name} ..."):
            rows += importlib.import_module(f"benchmarks.{name}").measure()
    table = Table(*COLUMNS)
    cells = [(row.what, row.measured, row.beside, row.aim) for row in rows]
    for row in cells:
        table.add_row(*row)
    console.print(table)
    if not names:
        (FOLDER / "RESULTS.md").write_text(_markdown(cells), encoding="utf-8")
        console.print("Written to benchmarks/RESULTS.md")


def _markdown(cells: list[tuple[str, str, str, str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (COLUMNS, ("---",) * len(COLUMNS), *cells)]
    return "\n".join(["# Benchmark results", "", _machine(), "", *lines, "", "Run them again with `make bench`.", ""])


def _machine() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    day = datetime.now(UTC).date().isoformat()
    processor = platform.machine()
    return (
        f"Measured on {day}, {os.cpu_count()} cores ({processor}), {platform.system()}, "
        f"Python {platform.python_version()}, {versions}. Everything in one run on one machine."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
